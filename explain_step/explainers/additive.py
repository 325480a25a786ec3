"""Efficiency of attributions: base value plus values must be the model's output, on every row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from explain_step.types import Attributions, FloatArray, Subject

DOUBLE, SINGLE = (1e-6, 1e-12), (1e-5, 1e-6)
"""Largest additivity error relative to the outputs and to the sums' terms: in double precision, in single precision."""


def errors(subject: Subject, attributions: Attributions) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return the absolute errors (n, outputs) of the explained rows, and which rows (n,) are wrong.

    The largest error allowed is a part of the size of the outputs, and a much smaller part of the sums' terms, whose
    rounding stays when they cancel: `DOUBLE`, or `SINGLE` for a model that answers in single precision, as boosters do.
    """
    output = subject.response.output[attributions.rows]
    error = np.abs(attributions.base_values + attributions.values.sum(axis=1) - output)
    single = bool((output == output.astype(np.float32)).all())
    of_output, of_terms = SINGLE if single else DOUBLE
    allowed = of_output * np.abs(output).max(axis=0, initial=0.0) + of_terms * terms(attributions)
    # written so that NaN fails
    return error, (~(error <= allowed)).any(axis=1)


def terms(attributions: Attributions) -> FloatArray:
    """Return the largest sum of the absolute terms of a row: (outputs,). Rounding errors are parts of it."""
    sums = np.abs(attributions.base_values) + np.abs(attributions.values).sum(axis=1)
    return np.asarray(np.where(np.isfinite(sums), sums, 0.0).max(axis=0, initial=0.0))
