"""Linear models in their linear output: interventional Shapley values in closed form.

For ``f(x) = intercept + sum_j coef_j z_j(x)`` the value of column j is ``coef_j (z_j(x) - mean_b z_j(b))``,
whatever the dependence between columns (Strumbelj and Kononenko 2014, doi:10.1007/s10115-013-0679-x; Lundberg
and Lee 2017, arXiv:1705.07874). Derived columns (one-hot, scaled, text) are summed into the raw column they
come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from explain_step.config import Config
from explain_step.explainers import masking
from explain_step.explainers.base import Prepared
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FittedModel, FloatArray, MethodSpec, Subject

VERSION = "1"
PROBE_ROWS = 50
ROUNDING = 1e-12
"""Error allowed relative to the terms of the sum, which may cancel."""


@dataclass(frozen=True, slots=True)
class Linear:
    """The explainer for models whose explained output is a weighted sum of (derived) columns."""

    name: str = "linear"

    def why_not(self, subject: Subject) -> str | None:
        """Return why the closed form does not hold for ``subject``, or None where it does."""
        model = subject.model
        if model.family != "linear" or model.native is None:
            return (
                f"the model is not of the linear family ({model.reason or model.model_class or model.family})"
            )
        if model.output_space == "probability":
            return "a probability is not a weighted sum of the columns; output='margin' is exact"
        if getattr(model.native, "coef_", None) is None:
            return f"{type(model.native).__name__} has no coefficients"
        return _differs(subject)

    def explain(self, subject: Subject, *, config: Config, seeds: Seeds) -> Attributions:
        """Return exact attributions of all rows, in closed form."""
        return attributed(subject, self.prepare(subject, rows=len(subject.X), budget=config.budget))

    def prepare(self, subject: Subject, *, rows: int, budget: float) -> Prepared:
        """Return the closed form against the background; ``rows`` and ``budget`` do not matter."""
        del rows, budget
        model = subject.model
        weights = weights_of(model)
        centre = np.asarray(derived_of(model, subject.background).mean(axis=0), dtype=np.float64).ravel()
        folded = [folding(model, coef) for coef, _ in weights]

        def explained(X: pd.DataFrame) -> FloatArray:
            shown = derived_of(model, X)
            return np.stack([product(shown, f) - centre @ f for f in folded], axis=2)

        params = {"background_rows": len(subject.background), "derived": len(centre)}
        return Prepared(
            values=explained,
            base=np.array([centre @ coef + intercept for coef, intercept in weights]),
            method=MethodSpec(name=self.name, version=VERSION, params=params),
        )


def attributed(subject: Subject, ready: Prepared, **facts: int) -> Attributions:
    """Return the attributions of all rows of a subject; ``facts`` join the method's parameters."""
    model, values = subject.model, ready.values(subject.X)
    return Attributions(
        values=values,
        base_values=np.tile(ready.base, (len(values), 1)),
        feature_names=model.feature_names,
        output_names=model.output_names,
        output_space=model.output_space,
        rows=np.arange(len(values), dtype=np.int64),
        method=replace(ready.method, params={**ready.method.params, "rows": len(values), **facts}),
    )


def terms(
    model: FittedModel, X: pd.DataFrame, background: pd.DataFrame
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Return what each raw column adds to the score of each row, and the intercepts; None where there is no such sum.

    Returns
    -------
    shown, others : ndarray of shape (n, d, k) and (m, d, k)
        Of the rows of ``X`` and of ``background``.
    intercept : ndarray of shape (k,)
    """
    if getattr(model.native, "coef_", None) is None:
        return None
    weights = weights_of(model)
    if not weights:
        return None
    folded = [folding(model, coef) for coef, _ in weights]
    shown, others = (
        np.stack([product(derived, f) for f in folded], axis=2)
        for derived in (derived_of(model, X), derived_of(model, background))
    )
    return shown, others, np.array([intercept for _, intercept in weights])


def weights_of(model: FittedModel) -> tuple[tuple[FloatArray, float], ...]:
    """Return coefficients and intercept of each explained output; empty where they do not fit the outputs."""
    coef = np.atleast_2d(dense(model.native.coef_))
    intercept = np.ravel(np.asarray(getattr(model.native, "intercept_", 0.0), dtype=np.float64))
    intercept = np.resize(intercept, len(coef)) if len(intercept) == 1 else intercept
    if len(coef) != len(model.output_names) or len(intercept) != len(coef):
        return ()
    # a binary classifier's coefficients speak of its second class
    sign = -1.0 if model.task == "binary" and model.positive == 0 else 1.0
    return tuple((sign * c, sign * float(i)) for c, i in zip(coef, intercept, strict=True))


def dense(values: Any) -> FloatArray:
    """Return the numbers of an array or a sparse matrix."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)


def derived_of(model: FittedModel, X: pd.DataFrame) -> Any:
    """Return the matrix that the coefficients apply to: a float array or a sparse matrix."""
    matrix: Any = X if model.preprocessing is None else model.preprocessing.transform(X)
    if hasattr(matrix, "tocsr"):
        return matrix.tocsr()
    return np.asarray(matrix, dtype=np.float64)


def folding(model: FittedModel, coef: FloatArray) -> Any:
    """Return the sparse (derived, raw) matrix that weighs derived columns and sums them by raw column."""
    from scipy import sparse

    sources = range(len(coef)) if model.preprocessing is None else model.preprocessing.sources
    place = (np.arange(len(coef)), np.asarray(list(sources)))
    return sparse.csr_array((coef, place), shape=(len(coef), len(model.feature_names)))


def product(matrix: Any, folded: Any) -> FloatArray:
    """Return the weighted sums of derived columns by raw column."""
    return dense(matrix @ folded)


def _differs(subject: Subject) -> str | None:
    """Return why the weighted sum is not the explained output, judged on some rows."""
    model = subject.model
    weights = weights_of(model)
    kind = type(model.native).__name__
    if not weights:
        return f"the coefficients of {kind} do not match the {len(model.output_names)} explained outputs"
    some = subject.background.iloc[:PROBE_ROWS]
    output = np.concatenate([subject.response.output[:PROBE_ROWS], masking.predict(model, some)])
    for k, (coef, intercept) in enumerate(weights):
        parts = (derived_of(model, subject.X.iloc[:PROBE_ROWS]), derived_of(model, some))
        if any(part.shape[1] != len(coef) for part in parts):
            return f"{kind} has {len(coef)} coefficients for {parts[0].shape[1]} derived columns"
        linear = np.concatenate([np.asarray(part @ coef) for part in parts]) + intercept
        terms = max(float(np.max(abs(part) @ np.abs(coef))) for part in parts) + abs(float(intercept))
        allowed = 1e-6 * float(np.abs(output[:, k]).max()) + ROUNDING * terms
        if not float(np.abs(linear - output[:, k]).max()) <= allowed:
            return f"the output of {kind} is not the weighted sum of the columns (it has a link function?)"
    return None


LINEAR = Linear()
