"""Free text as levels: by its length, where almost every row has a text of its own."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from explain_step import privacy
from explain_step.artifacts.columns import Levels
from explain_step.config import Config
from explain_step.types import IntArray

SMALLEST = 10
"""Rows that a range of lengths has at least."""
QUANTILES = (0.2, 0.4, 0.6, 0.8)
Unit = Literal["words", "characters"]


def by_length(series: pd.Series[Any], *, config: Config) -> tuple[Levels, Unit] | None:
    """Return ranges of a text column's length with about equally many rows, and what they count.

    Words, or characters where most texts are a single word (codes, or a script without spaces). The ranges are open at
    both ends, so that no single text's length is told; a missing text is a level, or counts as empty where too few are
    missing to be named.

    Returns
    -------
    Levels, {"words", "characters"}
        None where the column holds no text, or texts of about the same length.

    Examples
    --------
    >>> texts = pd.Series(["fine", "not so good", "it broke after two days"] * 20)
    >>> by_length(texts, config=Config())[0].names
    ('under 3 words', '3 to 4 words', '5 words or more')
    """
    blank = series.isna().to_numpy()
    texts = [str(v) for v in series[~blank]]
    if not texts or not all(isinstance(v, str) for v in series[~blank]):
        return None
    words = np.array([len(t.split()) for t in texts])
    unit: Unit = "words" if np.median(words) > 1 else "characters"
    size = np.zeros(len(series), dtype=np.int64)
    size[~blank] = words if unit == "words" else [len(t) for t in texts]
    smallest = max(SMALLEST, config.min_segment if privacy.is_strict(config) else 0)
    named = blank.sum() >= smallest
    counted = ~blank if named else np.ones(len(series), dtype=bool)
    edges = _edges(size[counted], smallest=smallest)
    if len(edges) == 0:
        return None
    codes = np.searchsorted(edges, size, side="right").astype(np.int64)
    codes[~counted] = len(edges) + 1
    names = (*_names(edges, unit), *([privacy.MISSING] if named else []))
    return Levels(names=names, codes=codes, samples=(None,) * len(names), ordered=True), unit


def _edges(size: IntArray, *, smallest: int) -> IntArray:
    """Return the lengths at which a new range begins, so that every range has ``smallest`` rows."""
    wanted = np.unique(np.ceil(np.quantile(size, QUANTILES)).astype(np.int64))
    edges: list[int] = []
    below = 0
    for edge in wanted.tolist():
        held = int((size < edge).sum())
        if held - below >= smallest and len(size) - held >= smallest:
            edges.append(edge)
            below = held
    return np.array(edges, dtype=np.int64)


def _names(edges: IntArray, unit: Unit) -> list[str]:
    inner = [
        f"{a:,} {unit}" if b == a + 1 else f"{a:,} to {b - 1:,} {unit}"
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    return [f"under {edges[0]:,} {unit}", *inner, f"{edges[-1]:,} {unit} or more"]
