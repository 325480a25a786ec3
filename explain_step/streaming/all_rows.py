"""Many rows in the memory of one machine: which of them are the sample, and the totals of all, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from explain_step.config import Config
from explain_step.explainers.prepared import Explain
from explain_step.explainers.sampling import spread_rows
from explain_step.seeds import Seeds
from explain_step.streaming.plan import Plan
from explain_step.streaming.totals import Totals, merge, of_block
from explain_step.types import IntArray, Subject

SAMPLE_ROWS, MOST_SAMPLE_ROWS, FEWEST_SAMPLE_ROWS = 20_000, 50_000, 2_000
"""Rows that everything but the totals is made from: more where a declared segment would else be too small, fewer where
the values of so many rows are too many."""
MANY_VALUES = 25_000_000
"""Values (rows times columns times outputs) from which rows stream by: 200 MB."""
BLOCK_VALUES, BLOCK_ROWS = 1 << 19, 1 << 15
"""Values and rows explained at a time; some ten arrays of this size are held."""


def sample_of(subject: Subject, *, config: Config, seeds: Seeds, many: int) -> IntArray | None:
    """Return the rows of the sample, ascending; None where all rows can be explained at once, or ``max_rows`` is given.

    Every row has the same chance, systematically along declared segments and the model's output, so that the sample
    speaks for all rows without weights.

    Parameters
    ----------
    many : int
        More rows than this are not explained at once.
    """
    n, per_row = len(subject.X), len(subject.model.feature_names) * len(subject.model.output_names)
    at_once = n <= many and n * per_row <= MANY_VALUES
    size = max(min(SAMPLE_ROWS, MANY_VALUES // per_row, many), min(FEWEST_SAMPLE_ROWS, many))
    size = _raised(subject, size, config=config)
    if config.max_rows is not None or at_once or size >= n:
        return None
    rng = seeds.rng("all_rows", "sample")
    return spread_rows(subject.response.output, size, rng=rng, strata=subject.strata)


def _raised(subject: Subject, size: int, *, config: Config) -> int:
    """Return the size that leaves ``min_segment`` rows of each stratum that has them, up to `MOST_SAMPLE_ROWS`."""
    if subject.strata is None:
        return size
    counts = np.bincount(subject.strata)
    least = counts[counts >= config.min_segment].min(initial=len(subject.X))
    wanted = int(np.ceil(1.2 * config.min_segment * len(subject.X) / max(int(least), 1)))
    return int(np.clip(wanted, size, max(size, MOST_SAMPLE_ROWS * size // SAMPLE_ROWS)))


def taken(subject: Subject, rows: IntArray) -> Subject:
    """Return the sample's rows as a subject of their own, with row ids as text."""
    sample = subject.take(rows)
    return replace(sample, row_ids=np.array([str(name) for name in sample.row_ids], dtype=object))


def totals_of(plan: Plan, subject: Subject, explain: Explain) -> Totals:
    """Return the totals of all rows of ``subject``, a block at a time.

    Parameters
    ----------
    explain : callable
        Of `explain_step.explainers.prepared.prepare`.
    """
    total: Totals | None = None
    for block in blocks(subject):
        found = of_block(plan, block, explain(block.X))
        total = found if total is None else merge(total, found)
    assert total is not None  # a subject has rows
    return total


def blocks(subject: Subject) -> Iterator[Subject]:
    """Yield the rows in order, as subjects of `BLOCK_VALUES` values each."""
    n, per_row = len(subject.X), len(subject.model.feature_names) * len(subject.model.output_names)
    size = max(256, min(BLOCK_ROWS, BLOCK_VALUES // max(1, per_row)))
    for start in range(0, n, size):
        yield _block(subject, slice(start, start + size))


def _block(subject: Subject, rows: slice) -> Subject:
    """Return a slice of the rows: views of everything that is not read."""
    return replace(
        subject,
        X=_frame(subject.X, rows),
        frame=_frame(subject.frame, rows),
        y=None,
        weights=None if subject.weights is None else subject.weights[rows],
        row_ids=subject.row_ids[rows],
        response=replace(
            subject.response,
            output=subject.response.output[rows],
            label=None,
            probability=None,
            prediction=None,
        ),
        strata=None,
    )


def _frame(frame: pd.DataFrame, rows: slice) -> pd.DataFrame:
    return frame.iloc[rows].reset_index(drop=True)
