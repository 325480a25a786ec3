"""Linear models in their linear output, correlation-dependent: another quantity, by the caller's choice alone.

Interventional values ask what the model does when a column is replaced; here an unknown column is expected from the known
ones, by the linear regression that the background rows give. For a sum ``f`` and a coalition S of known columns
``v(S) = E*[f | x_S]``, the best linear prediction, which is the conditional expectation where columns are jointly normal
(Chen, Janizek, Lundberg and Lee 2020, arXiv:2006.16234; Aas, Jullum and Loland 2021,
doi:10.1016/j.artint.2021.103502). Credit then also goes to columns that the model does not use, for what they tell of
others. Derived columns (one-hot, scaled) of a raw column become known together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers.base import Prepared
from explain_step.explainers.linear import LINEAR, attributed, dense, derived_of, folding, product, weights_of
from explain_step.explainers.regression_games import COLLINEAR, RegressionGame, cells, shapley
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FittedModel, FloatArray, MethodSpec, Subject

VERSION = "1"
CONSTANT = 1e-12
"""Spread of a column, relative to its size, that is rounding."""
FAR = 2.0
BROKEN = 1e-6
"""Square of a deviation, in standard deviations, from what holds exactly in all background rows."""
MOST_DERIVED = 500
MOST_CELLS = 1_300_000_000
"""Twenty seconds or so: 24 numbers, or 19 categories of four levels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression:
    """What the background rows say about the columns of a linear model.

    Attributes
    ----------
    centre : ndarray of shape (p,)
        Means of the derived columns.
    basis : ndarray of shape (p, r)
        From derived columns, centred, to the game's coordinates.
    folded : tuple of sparse arrays of shape (p, d)
        The weighted sum of each output, by raw column.
    base : ndarray of shape (k,)
        The mean outputs.
    game : RegressionGame
    """

    centre: FloatArray
    basis: FloatArray
    folded: tuple[Any, ...]
    base: FloatArray
    game: RegressionGame

    def terms(self, model: FittedModel, X: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        """Return what each raw column adds to the sum, beyond its mean (n, d, k), and the coordinates (n, r)."""
        centred = dense(derived_of(model, X)) - self.centre
        return np.stack([product(centred, f) for f in self.folded], axis=2), centred @ self.basis


@dataclass(frozen=True, slots=True)
class LinearCorrelation:
    """The explainer for linear models whose caller asks for correlation-dependent values."""

    name: str = "linear_correlation_dependent"

    def why_not(self, subject: Subject) -> str | None:
        """Return why there is no such quantity for ``subject``, or None where there is."""
        return LINEAR.why_not(subject) or _too_thin(subject)

    def explain(self, subject: Subject, *, config: Config, seeds: Seeds) -> Attributions:
        """Return exact attributions of all rows."""
        ready = self.prepare(subject, rows=len(subject.X), budget=config.budget)
        return attributed(subject, ready, rows_outside=_outside(subject))

    def prepare(self, subject: Subject, *, rows: int, budget: float) -> Prepared:
        """Return the closed form against the background; ``rows`` and ``budget`` do not matter."""
        del rows, budget
        model = subject.model
        known = regression(model, subject.background)
        cost = cells(known.game)
        if cost > MOST_CELLS:
            msg = (
                f"all coalitions of {len(known.game.playing)} columns ({len(known.game.correlation)} derived ones) are too "
                "many; 24 columns of numbers can be done"
            )
            raise NotApplicable(msg)
        coefficients = shapley(known.game)

        def explained(X: pd.DataFrame) -> FloatArray:
            own, coordinates = known.terms(model, X)
            return own + np.tensordot(coordinates, coefficients, axes=1)

        params = {
            "feature_perturbation": "correlation_dependent",
            "background_rows": len(subject.background),
            "derived": len(known.centre),
            "coordinates": len(known.game.correlation),
        }
        return Prepared(
            values=explained,
            base=known.base,
            method=MethodSpec(name=self.name, version=VERSION, params=params),
        )


def _outside(subject: Subject) -> int:
    """Return how many explained rows lie where the background rows do not say how columns go together.

    Their distance from the mean, in units of the background's own spread in every direction (Mahalanobis), is more than
    `FAR` times that of any background row, or they break what holds in all of these, such as the equality of two columns.
    """
    known = regression(subject.model, subject.background)
    variance, axes = np.linalg.eigh(known.game.correlation)
    told = variance > COLLINEAR

    def far(X: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        along = known.terms(subject.model, X)[1] @ axes
        return (along[:, told] ** 2 / variance[told]).sum(axis=1), (along[:, ~told] ** 2).sum(axis=1)

    (distance, broken), (usual, _) = far(subject.X), far(subject.background)
    return int(((distance > FAR**2 * usual.max(initial=0.0)) | (broken > BROKEN)).sum())


def _too_thin(subject: Subject) -> str | None:
    """Return why the background rows say too little of the columns."""
    derived, rows = derived_of(subject.model, subject.background.iloc[:1]).shape[1], len(subject.background)
    if derived > MOST_DERIVED:
        return f"the model reads {derived:,} derived columns, whose correlations are too many; {MOST_DERIVED} are allowed"
    if rows <= derived:
        return (
            f"{rows:,} background rows do not tell how {derived:,} derived columns depend on each other; "
            "give more background rows"
        )
    return None


def regression(model: FittedModel, background: pd.DataFrame) -> Regression:
    """Return what the background rows say about the columns of a linear model."""
    weights = weights_of(model)
    derived = dense(derived_of(model, background))
    centre = derived.mean(axis=0)
    centred = derived - centre
    folded = tuple(folding(model, coef) for coef, _ in weights)
    basis, widths = _basis(model, centred, size=np.abs(derived).max(axis=0))
    told = basis.T @ (centred.T @ centred / len(centred))  # covariances of coordinates with derived columns
    column = np.repeat(np.arange(len(widths)), widths)
    game = RegressionGame(
        correlation=told @ basis,
        covariance=np.stack([told @ coef for coef, _ in weights], axis=1),
        own=np.stack([(told * dense(f)[:, column].T).sum(axis=1) for f in folded], axis=1),
        widths=widths,
    )
    base = np.array([centre @ coef + intercept for coef, intercept in weights])
    return Regression(centre=centre, basis=basis, folded=folded, base=base, game=game)


def _basis(
    model: FittedModel, centred: FloatArray, *, size: FloatArray
) -> tuple[FloatArray, tuple[int, ...]]:
    """Return what makes derived columns coordinates (p, r): uncorrelated within a raw column, of unit variance.

    What does not vary has none: constants, and the last of several one-hot columns whose sum is one.
    """
    p, d = centred.shape[1], len(model.feature_names)
    sources = np.arange(p) if model.preprocessing is None else np.asarray(model.preprocessing.sources)
    spread = centred.std(axis=0)
    varies = spread > CONSTANT * size
    parts, widths = [], []
    for j in range(d):
        of = np.flatnonzero((sources == j) & varies)
        scaled = centred[:, of] / spread[of]
        variance, axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))
        kept = variance > COLLINEAR
        part = np.zeros((p, int(kept.sum())))
        part[of] = axes[:, kept] / np.sqrt(variance[kept]) / spread[of, None]
        parts.append(part)
        widths.append(part.shape[1])
    return np.concatenate(parts, axis=1), tuple(widths)


def expected(
    known: Regression, model: FittedModel, X: pd.DataFrame, *, members: npt.NDArray[np.bool_]
) -> FloatArray:
    """Return the outputs (c, k) expected of rows of which some columns are known, each by a regression of its own.

    Parameters
    ----------
    known : Regression
    model : FittedModel
    X : DataFrame of c rows
    members : ndarray of bool of shape (c, d)
        The columns that are known of each row.
    """
    game = known.game
    own, coordinates = known.terms(model, X)
    found = known.base + (own * members[:, :, None]).sum(axis=1)
    column = np.repeat(np.arange(len(game.widths)), game.widths)
    for i, member in enumerate(members):
        at = np.flatnonzero(member[column])
        slope = np.linalg.lstsq(game.correlation[np.ix_(at, at)], game.covariance[at], rcond=COLLINEAR)[0]
        found[i] += coordinates[i, at] @ (slope - game.own[at])
    return np.asarray(found)


LINEAR_CORRELATION = LinearCorrelation()
