"""The rows of the dependence table: one frame per curve, single rows' lines, the density and sampled points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from explain_step import privacy
from explain_step.artifacts import columns, effects
from explain_step.config import Config
from explain_step.seeds import Seeds
from explain_step.types import Attributions, Caveat, FloatArray, IntArray, Subject

ICE_LINES = 20
POINTS = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The rows that the curves of all features share.

    Attributes
    ----------
    reference : DataFrame
        Rows of the background, for partial dependence.
    local : ndarray of int
        Explained rows, for accumulated local effects.
    near : DataFrame
        These rows' columns.
    """

    explained: Subject
    attributions: Attributions
    reference: pd.DataFrame
    local: IntArray
    near: pd.DataFrame
    config: Config
    seeds: Seeds

    @property
    def local_weights(self) -> FloatArray | None:
        """The weights of the rows behind accumulated local effects."""
        return None if self.explained.weights is None else self.explained.weights[self.local]


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One feature's table rows, sampled points and description."""

    table: pd.DataFrame
    points: pd.DataFrame | None
    meta: dict[str, Any]
    caveats: tuple[Caveat, ...]


def contributions(rows: Rows, feature: str) -> FloatArray:
    """Return the feature's attributions: (n, n_outputs)."""
    position = rows.attributions.feature_names.index(feature)
    return np.asarray(rows.attributions.values[:, position, :])


def frame(
    rows: Rows,
    feature: str,
    name: str,
    curve: effects.Curve,
    *,
    x: FloatArray | None = None,
    count: FloatArray | None = None,
    extra: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Return a curve as table rows, one block per output; points without rows have no value."""
    parts = []
    for k, output in enumerate(rows.attributions.output_names):
        columns_ = {
            "output": output,
            "feature": feature,
            "curve": name,
            "x": curve.x if x is None else x,
            "value": curve.value[:, k],
            "ci_low": curve.low[:, k],
            "ci_high": curve.high[:, k],
            "count": curve.count if count is None else count,
        }
        parts.append(pd.DataFrame(columns_ | (extra or {})))
    return pd.concat(parts, ignore_index=True)


def ice(
    rows: Rows,
    feature: str,
    lines: FloatArray,
    *,
    x: FloatArray,
    rng: np.random.Generator,
    level: Any = None,
) -> pd.DataFrame:
    """Return the curves of a few reference rows; none under strict privacy (each is a single row)."""
    if privacy.is_strict(rows.config):
        return pd.DataFrame()
    m, g, _ = lines.shape
    taken = np.sort(rng.choice(m, min(ICE_LINES, m), replace=False))
    parts = []
    for k, output in enumerate(rows.attributions.output_names):
        part = pd.DataFrame({"x": np.tile(x, len(taken)), "value": lines[taken, :, k].ravel()})
        part["line"] = np.repeat(np.arange(len(taken), dtype=np.float64), g)
        part = part.assign(output=output, feature=feature, curve="ice")
        parts.append(part if level is None else part.assign(level=np.tile(level, len(taken))))
    return pd.concat(parts, ignore_index=True)


def missing(rows: Rows, feature: str, *, rng: np.random.Generator) -> pd.DataFrame:
    """Return the mean attribution of rows where the column is missing, as a point off the curve."""
    blank = np.isnan(columns.numbers(rows.explained.X[feature]))
    smallest = rows.config.min_segment if privacy.is_strict(rows.config) else 1
    if blank.sum() < smallest:
        return pd.DataFrame()
    codes = np.where(blank, 0, -1).astype(np.int64)
    curve = effects.group_means(
        contributions(rows, feature), codes, groups=1, weights=rows.explained.weights, rng=rng
    )
    return frame(rows, feature, "shap", curve, x=np.array([np.nan]), extra={"level": privacy.MISSING})


def density(rows: Rows, feature: str, *, values: FloatArray, grid: FloatArray) -> pd.DataFrame:
    """Return rows per bin of equal width over the part of the axis that is worth drawing."""
    smallest = rows.config.min_segment if privacy.is_strict(rows.config) else None
    edges, counts = effects.density(values, grid, smallest=smallest)
    part = pd.DataFrame(
        {"x": (edges[1:] + edges[:-1]) / 2, "x_low": edges[:-1], "x_high": edges[1:], "count": counts}
    )
    parts = [part.assign(output=o, feature=feature, curve="density") for o in rows.attributions.output_names]
    return pd.concat(parts, ignore_index=True)


def points(rows: Rows, feature: str, *, values: FloatArray) -> pd.DataFrame | None:
    """Return sampled (value, attribution) points for the scatter; none under strict privacy."""
    if privacy.is_strict(rows.config):
        return None
    known = np.flatnonzero(~np.isnan(values))
    rng = rows.seeds.rng("dependence", "points", feature)
    taken = np.sort(rng.choice(known, POINTS, replace=False)) if len(known) > POINTS else known
    phi = contributions(rows, feature)
    parts = [
        pd.DataFrame({"output": output, "feature": feature, "x": values[taken], "shap": phi[taken, k]})
        for k, output in enumerate(rows.attributions.output_names)
    ]
    return pd.concat(parts, ignore_index=True)
