"""Efficiency of attributions: base value plus values must be the model's output, on every row."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from explain_step.types import Attributions, FloatArray, Subject

ZERO = 1e-14
"""Values below this, relative to the outputs, are rounding: some forty units in the last place."""
DOUBLE, SINGLE = (1e-6, 1e-12), (1e-5, 1e-6)
"""Largest additivity error relative to the outputs and to the sums' terms: in double precision, in single precision."""
PART = 0.1
"""And relative to what the values of a row come to: outputs far from zero are rounded coarsely for their differences."""


def errors(subject: Subject, attributions: Attributions) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return the absolute errors (n, outputs) of the explained rows, and which rows (n,) are wrong.

    The largest error allowed is a part of the size of the outputs, and a much smaller part of the sums' terms, whose
    rounding stays when they cancel: `DOUBLE`, or `SINGLE` for a model that answers in single precision, as boosters do.
    Where there is something to explain it is also no more than `PART` of it, but for rounding in double precision.
    """
    output = subject.response.output[attributions.rows]
    error = np.abs(attributions.base_values + attributions.values.sum(axis=1) - output)
    single = bool((output == output.astype(np.float32)).all())
    of_output, of_terms = SINGLE if single else DOUBLE
    largest = terms(attributions)
    allowed = of_output * np.abs(output).max(axis=0, initial=0.0) + of_terms * largest
    typical = np.abs(attributions.values).sum(axis=1).mean(axis=0)
    bounded = np.minimum(allowed, np.maximum(PART * typical, DOUBLE[1] * largest))
    allowed = np.where(typical > 0, bounded, allowed)
    # written so that NaN fails
    return error, (~(error <= allowed)).any(axis=1)


def terms(attributions: Attributions) -> FloatArray:
    """Return the largest sum of the absolute terms of a row: (outputs,). Rounding errors are parts of it."""
    sums = np.abs(attributions.base_values) + np.abs(attributions.values).sum(axis=1)
    return np.asarray(np.where(np.isfinite(sums), sums, 0.0).max(axis=0, initial=0.0))


def without_dust(attributions: Attributions) -> Attributions:
    """Return the attributions with zeros for the features that nothing but rounding sets apart from zero.

    Sums over coalitions leave a few units in the last place of the outputs where a feature has no effect; they would be
    ranked and drawn like effects.
    """
    dust = np.abs(attributions.values).max(axis=0, initial=0.0) <= ZERO * terms(attributions)
    if not (dust & (attributions.values != 0).any(axis=0)).any():
        return attributions
    error, parts = attributions.standard_error, attributions.parts
    return dataclasses.replace(
        attributions,
        values=np.where(dust, 0.0, attributions.values),
        standard_error=None if error is None else np.where(dust, 0.0, error),
        parts=None if parts is None else np.where(dust, 0.0, parts),
    )
