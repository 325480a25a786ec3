"""The binned form of a beeswarm: how many rows have which attribution, and how high their values are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from explain_step import privacy
from explain_step.artifacts import columns
from explain_step.config import Config
from explain_step.types import Attributions, FloatArray, IntArray, Subject

FEATURES = 20
OUTPUTS = 10
BINS = 100
BANDS = 5
"""Rows of one bin are told apart by the fifth of the column that their value lies in."""
SMALLEST = 5
"""Strict privacy: no cell with fewer rows."""


def beeswarm(
    explained: Subject, attributions: Attributions, *, order: IntArray, config: Config
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return cells of a raster (output, feature, shap_low, shap_high, count, mean_value_rank) and its meta.

    ``mean_value_rank`` is the mean rank of the rows' values within their column, 0 lowest to 1 highest; NaN
    for unordered and redacted columns and missing values. Under strict privacy bins hold at least `SMALLEST`
    rows, are not split by value, and the outermost bins are open (their printed edges are inner quantiles of
    the attributions).
    """
    strict = privacy.is_strict(config)
    top = [int(j) for j in order[:FEATURES]]
    parts = []
    for k, output in enumerate(attributions.output_names[:OUTPUTS]):
        edges = _edges(attributions.values[:, top, k], strict=strict, config=config)
        for j in top:
            feature = attributions.feature_names[j]
            ranks = columns.value_ranks(explained.X[feature])
            if feature in privacy.hidden(config):
                ranks = np.full(len(ranks), np.nan)
            part = _cells(attributions.values[:, j, k], ranks, edges=edges, strict=strict)
            part.insert(0, "feature", feature)
            part.insert(0, "output", output)
            parts.append(part)
    meta = {
        "method": f"attributions counted in {BINS} bins of equal width per output"
        + ("" if strict else f", split by fifths of the column's value ranks ({BANDS} bands and none)"),
        "interval": "none: a distribution of rows",
        "features_shown": len(top),
        "rows": len(attributions.rows),
    }
    return pd.concat(parts, ignore_index=True), meta


def _edges(phi: FloatArray, *, strict: bool, config: Config) -> FloatArray:
    if strict:
        tail = privacy.strict_tail(len(phi), config=config)
        low, high = (
            float(np.quantile(phi, tail, axis=0).min()),
            float(np.quantile(phi, 1 - tail, axis=0).max()),
        )
    else:
        low, high = float(phi.min()), float(phi.max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _cells(phi: FloatArray, ranks: FloatArray, *, edges: FloatArray, strict: bool) -> pd.DataFrame:
    bins = np.clip(np.searchsorted(edges, phi, side="right") - 1, 0, BINS - 1)
    if strict:
        bins, lows, highs = _merged(bins, edges)
        bands = np.zeros(len(phi), dtype=np.int64)
    else:
        lows, highs = edges[:-1], edges[1:]
        bands = np.where(np.isnan(ranks), BANDS, np.minimum(np.nan_to_num(ranks) * BANDS, BANDS - 1)).astype(
            np.int64
        )
    cell = pd.DataFrame({"bin": bins, "band": bands, "rank": ranks})
    grouped = (
        cell[cell["bin"] >= 0].groupby(["bin", "band"], sort=True)["rank"].agg(["size", "mean"]).reset_index()
    )
    at = grouped["bin"].to_numpy(dtype=np.int64)
    return pd.DataFrame(
        {
            "shap_low": lows[at],
            "shap_high": highs[at],
            "count": grouped["size"].to_numpy(dtype=np.float64),
            "mean_value_rank": grouped["mean"].to_numpy(dtype=np.float64),
        }
    )


def _merged(bins: IntArray, edges: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return each row's group of bins and the groups' ends; every group holds `SMALLEST` rows.

    A bin with enough rows is a group of its own; the sparse bins between two such are joined until they have
    enough. What is left over is counted in the group beside it, whose printed ends stay: one row does not
    widen a group. With fewer rows than `SMALLEST` at all, rows are dropped (-1).
    """
    counts = np.bincount(bins, minlength=BINS)
    if counts.sum() < SMALLEST:
        return np.full(len(bins), -1), edges[:-1], edges[1:]
    group = np.full(BINS, -1, dtype=np.int64)
    spans: list[tuple[int, int]] = []
    waiting: list[int] = []
    for i in np.flatnonzero(counts).tolist():
        if counts[i] >= SMALLEST:
            group[[*waiting, i]] = len(spans)
            if waiting and spans:
                group[waiting] = len(spans) - 1
            spans.append((i, i))
            waiting = []
            continue
        waiting.append(i)
        if counts[waiting].sum() >= SMALLEST:
            group[waiting] = len(spans)
            spans.append((waiting[0], waiting[-1]))
            waiting = []
    group[waiting] = len(spans) - 1
    first, last = (np.array([span[side] for span in spans]) for side in (0, 1))
    return group[bins], edges[:-1][first], edges[1:][last]
