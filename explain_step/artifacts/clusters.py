"""Columns that carry the same information: association of every pair, and clusters found from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from explain_step.artifacts import columns
from explain_step.types import Caveat, FloatArray, IntArray

THRESHOLD = 0.7
MIN_ROWS = 20
"""In fewer rows columns that have nothing to do with each other often reach the threshold."""
MAX_ROWS = 2_000
MAX_COLUMNS = 200
METHOD = (
    "found by average linkage on 1 - association, cut at association 0.7; association is |Spearman| between "
    "numeric columns, bias-corrected Cramer's V between levels, and the adjusted correlation ratio of ranks "
    "between the two; "
    "from a sample of at most 2,000 explained rows and the 200 most important columns; under 20 rows none is claimed"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """Associations among the looked-at columns.

    Attributes
    ----------
    columns : ndarray of int of shape (c,)
        Feature positions that were looked at, the most important first.
    association : ndarray of shape (c, c)
        0 (none) to 1 (the same information).
    members : tuple of tuple of int
        Feature positions of each cluster of at least two, the most important first.
    feature_names : tuple of str
        All features.
    """

    columns: IntArray
    association: FloatArray
    members: tuple[tuple[int, ...], ...]
    feature_names: tuple[str, ...]

    def named(self, features: Sequence[str]) -> dict[str, list[int]]:
        """Return clusters under readable names: their first columns."""
        out: dict[str, list[int]] = {}
        for members in self.members:
            shown = [features[j] for j in members[:3]]
            more = f" + {len(members) - 3} others" if len(members) > 3 else ""
            out[" + ".join(shown) + more] = list(members)
        return out

    def pairs(self) -> list[tuple[int, int, float]]:
        """Return pairs at or above the threshold as feature positions, the strongest first."""
        a, b = np.nonzero(np.triu(self.association >= THRESHOLD, 1))
        strength = self.association[a, b]
        ordered = np.argsort(-strength, kind="stable")
        return [(int(self.columns[a[i]]), int(self.columns[b[i]]), float(strength[i])) for i in ordered]

    def pairs_as_records(self, features: Sequence[str], limit: int = 50) -> list[dict[str, Any]]:
        """Return the strongest pairs for an artifact's meta."""
        return [
            {"a": features[i], "b": features[j], "association": round(s, 4)}
            for i, j, s in self.pairs()[:limit]
        ]

    def caveats(self) -> tuple[Caveat, ...]:
        """Return the warning about strongly associated pairs, if there are any."""
        pairs = self.pairs()
        if not pairs:
            return ()
        shown = ", ".join(
            f"{self.feature_names[i]!r} and {self.feature_names[j]!r} ({s:.2f})" for i, j, s in pairs[:5]
        )
        more = f" and {len(pairs) - 5} more pairs" if len(pairs) > 5 else ""
        text = (
            f"Strongly associated columns share credit in ways the data cannot settle: {shown}{more}. "
            "Read their importance together."
        )
        return (Caveat(code="correlated_features", section="importance", message=text),)


def find(X: pd.DataFrame, *, order: IntArray, rng: np.random.Generator) -> Clusters:
    """Return associations and clusters of the most important columns of ``X``.

    Parameters
    ----------
    X : DataFrame of n rows
    order : ndarray of int
        Feature positions, the most important first.
    rng : Generator
        Draws the sample of rows.
    """
    looked = np.asarray(order[:MAX_COLUMNS], dtype=np.int64)
    if len(X) > MAX_ROWS:
        X = X.iloc[np.sort(rng.choice(len(X), MAX_ROWS, replace=False))]
    enough = len(X) >= MIN_ROWS
    association = association_matrix(X.iloc[:, looked]) if enough else np.eye(len(looked))
    return Clusters(
        columns=looked,
        association=association,
        members=tuple(tuple(int(looked[i]) for i in m) for m in _linked(association)),
        feature_names=tuple(str(c) for c in X.columns),
    )


def _linked(association: FloatArray) -> list[list[int]]:
    """Return clusters of at least two positions (average linkage), in order of their first member."""
    from scipy.cluster.hierarchy import average, fcluster
    from scipy.spatial.distance import squareform

    if len(association) < 2:
        return []
    distance = 1.0 - association
    np.fill_diagonal(distance, 0.0)
    label = fcluster(average(squareform(distance, checks=False)), t=1 - THRESHOLD, criterion="distance")
    groups = [np.flatnonzero(label == g).tolist() for g in dict.fromkeys(label.tolist())]
    return [g for g in groups if len(g) > 1]


def association_matrix(X: pd.DataFrame) -> FloatArray:
    """Return the association of every pair of columns: symmetric, 0 to 1, ones on the diagonal.

    Numeric pairs: |Spearman| on rows where both are known. Pairs of levels: Cramer's V with Bergsma's bias
    correction (2013, doi:10.1016/j.jkss.2012.10.002). Mixed pairs: square root of Kelley's adjusted
    correlation ratio of the numeric column's ranks (1935, doi:10.1073/pnas.21.9.554). Missing levels are a
    level of their own.

    Examples
    --------
    >>> x = np.arange(50.0)
    >>> association_matrix(pd.DataFrame({"a": x, "b": -(x**3)})).round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    kinds = [columns.kind(X.iloc[:, j]) for j in range(X.shape[1])]
    numeric = [j for j, k in enumerate(kinds) if k != "levels"]
    levels = [j for j, k in enumerate(kinds) if k == "levels"]
    out = np.zeros((len(kinds), len(kinds)))
    ranks = [columns.scaled_ranks(columns.numbers(X.iloc[:, j])) for j in numeric]
    codes = {j: columns.coded(X.iloc[:, j]) for j in levels}
    if numeric:
        out[np.ix_(numeric, numeric)] = np.abs(_correlations(np.column_stack(ranks)))
    for position, a in enumerate(levels):
        for b in levels[position + 1 :]:
            out[a, b] = out[b, a] = _cramers_v(codes[a], codes[b])
        for b, rank in zip(numeric, ranks, strict=True):
            out[a, b] = out[b, a] = _correlation_ratio(codes[a], rank)
    np.fill_diagonal(out, 1.0)
    return np.clip(out, 0.0, 1.0)


def _correlations(ranks: FloatArray) -> FloatArray:
    """Pearson correlations of the columns over pairwise complete rows; 0 where undefined."""
    known = (~np.isnan(ranks)).astype(np.float64)
    r = np.where(known > 0, ranks - 0.5, 0.0)
    n = known.T @ known
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (r.T @ known) / n
        square = (r**2).T @ known / n - mean**2
        covariance = (r.T @ r) / n - mean * mean.T
        result = covariance / np.sqrt(np.maximum(square, 0) * np.maximum(square.T, 0))
    usable = (n >= 3) & (square > 1e-12) & (square.T > 1e-12)
    return np.where(usable, result, 0.0)


def _cramers_v(a: IntArray, b: IntArray) -> float:
    n = len(a)
    rows, cols = int(a.max()) + 1, int(b.max()) + 1
    if n < 3 or rows * cols > 4 * 10**6:
        return 0.0
    table = np.bincount(a * cols + b, minlength=rows * cols).reshape(rows, cols).astype(np.float64)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    r, k = table.shape
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi = float(((table - expected) ** 2 / expected).sum()) / n
    corrected = max(0.0, phi - (r - 1) * (k - 1) / (n - 1))
    room = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(corrected / room)) if min(r, k) > 1 and room > 1e-9 else 0.0


def _correlation_ratio(codes: IntArray, ranks: FloatArray) -> float:
    known = ~np.isnan(ranks)
    values, groups = ranks[known], codes[known]
    n = len(values)
    if n < 3 or np.ptp(values) == 0:
        return 0.0
    counts = np.bincount(groups)
    used = counts > 0
    means = np.bincount(groups, weights=values)[used] / counts[used]
    k = int(used.sum())
    if k < 2 or n <= k:
        return 0.0
    between = float((counts[used] * (means - values.mean()) ** 2).sum())
    ratio = between / float(((values - values.mean()) ** 2).sum())
    return float(np.sqrt(max(0.0, 1 - (1 - ratio) * (n - 1) / (n - k))))
