"""Areas under the ROC curve of all rows of a Spark DataFrame, exactly.

::

    rows ─▶ executors: score, hit, levels, weight ─▶ shuffled by range of scores ─▶ each range sorted ─▶ sums to the driver
    ranges of several classes ─▶ how much their rows move each area ─▶ shuffled by row ─▶ added up ─▶ sums to the driver

Ranges are cut in the gaps between the sample's scores, so that they do not depend on partitions; a range whose worker dies
is made again by Spark.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from explain_step.metrics import curves
from explain_step.spark_frames import blocks, frame_of, numbered, replies
from explain_step.spark_work import Work, as_trained, block, data_of, received
from explain_step.streaming import Plan, area_errors, areas
from explain_step.streaming.area_errors import Outside
from explain_step.streaming.areas import Areas, Range
from explain_step.streaming.plan import segment_codes
from explain_step.types import FloatArray, Subject

RANGE, MOVED = "place", "moved"
TYPES = {areas.SCORE: "double", areas.HIT: "boolean", areas.KEY: "long", areas.ROWS: "double"}
TYPES |= {areas.WEIGHT: "double", areas.SQUARE: "double"}
HELD_ROWS = 1_000_000
"""Rows that an executor reads before it adds up equal ones."""
MOVED_CELLS = 1 << 23
"""Numbers that an executor holds where rows of several curves meet, about."""


def areas_of(source: Any, work: Work, given: Any) -> Areas | None:
    """Return the areas of all rows and of every level; None where scores cannot be cut into ranges.

    Parameters
    ----------
    source : Spark DataFrame
    work : Work
        Whose plan has the ranges.
    given : object
        What `spark_work.sent_to` gave.
    """
    plan, columns = work.plan, source.columns
    keys = areas.columns_of(plan)
    schema = {RANGE: "int", **{key: TYPES.get(key, "int") for key in keys}}
    schema |= {name: TYPES[name] for name in (areas.ROWS, areas.WEIGHT, areas.SQUARE)}

    def scored(batches: Iterator[Any]) -> Iterator[Any]:
        work = received(data_of(given))
        for table in blocks(batches, columns=columns):
            yield from _scored(work, as_trained(frame_of(table, missing=work.missing), work.dtypes))

    def summed(batches: Iterator[Any]) -> bytes | None:
        return _summed(received(data_of(given)), batches)

    made = numbered(source).mapInArrow(scored, _written(schema))
    made = made.repartition(math.ceil(int(areas.starts(plan)[-1]) / 2), RANGE)
    several = len(areas.edges(plan)) > 1
    if several:  # read twice
        made = _kept(made)
    try:
        parts = replies(made, summed)
        ranges = [Range.from_row(row) for part in parts for row in _read(part)]
        found = areas.joined(plan, ranges) if ranges else None
        if found is None or not several:
            return found
        known = area_errors.outside(plan, ranges, found)
        return replace(found, squares=_squares(made, work, known, given=given))
    finally:
        if several:
            made.unpersist()


def _kept(frame: Any) -> Any:
    from pyspark import StorageLevel

    return frame.persist(StorageLevel.DISK_ONLY)


def _written(schema: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in schema.items())


# --- scores in ranges


def _scored(work: Work, frame: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of a block, for each curve, with what areas need of them, equal ones added up."""
    import pyarrow as pa

    subject, plan = block(work, frame), work.plan
    rows = _rows(plan, subject)
    pairs = curves(subject.y, subject.response, subject.model)
    for (hit, score), edges, first in zip(pairs, areas.edges(plan), areas.starts(plan), strict=False):
        own = rows.assign(**{areas.SCORE: score.astype(np.float64), areas.HIT: hit})
        found = areas.gathered(own[own[areas.WEIGHT] > 0], areas.columns_of(plan))
        place = first + np.searchsorted(np.asarray(edges), found[areas.SCORE].to_numpy(), side="right")
        found.insert(0, RANGE, place.astype(np.int32))
        yield from pa.Table.from_pandas(found, preserve_index=False).to_batches()


def _rows(plan: Plan, subject: Subject) -> pd.DataFrame:
    """Return weight, levels and, for several curves, the key of the rows."""
    w = np.ones(len(subject.X)) if subject.weights is None else subject.weights
    asked = areas.segments_of(plan)
    levels = [segment_codes(s, subject.frame, output=subject.response.output) for s in asked]
    found = {areas.level_name(i): codes.astype(np.int32) for i, codes in enumerate(levels)}
    if len(areas.edges(plan)) > 1:
        found[areas.KEY] = area_errors.keys_of(subject, levels).view(np.int64)
    return pd.DataFrame({**found, areas.ROWS: 1.0, areas.WEIGHT: w, areas.SQUARE: w**2})


def _ranges(work: Work, batches: Iterator[Any]) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the ranges of a partition: their places, and their gathered rows in the order of scores."""
    keys = areas.columns_of(work.plan)
    held: dict[int, list[pd.DataFrame]] = {}
    for batch in batches:
        for place, rows in batch.to_pandas().groupby(RANGE, sort=False):
            _hold(held.setdefault(int(place), []), rows, keys=keys)
    for place in sorted(held):
        yield place, areas.gathered(pd.concat(held.pop(place)), keys)


def _hold(parts: list[pd.DataFrame], rows: pd.DataFrame, *, keys: list[str]) -> None:
    """Keep rows of a range; equal ones are added up whenever there are many."""
    parts.append(rows)
    if sum(map(len, parts)) > HELD_ROWS and len(parts) > 1:
        parts[:] = [areas.gathered(pd.concat(parts), keys)]


def _summed(work: Work, batches: Iterator[Any]) -> bytes | None:
    """Return the sums of the ranges of a partition."""
    found = [areas.of_range(work.plan, rows, place=place).to_row() for place, rows in _ranges(work, batches)]
    return _bytes(np.stack(found)) if found else None


# --- rows of several curves


def _squares(made: Any, work: Work, known: Outside, *, given: Any) -> FloatArray:
    """Return the sums of squared moves of each group, and last that of squared weights, from the ranges."""
    levels = [areas.level_name(i) for i in range(len(areas.segments_of(work.plan)))]
    width = 1 + sum(area_errors.widths(work.plan))
    names = [f"{MOVED}{i}" for i in range(width)]
    schema = {areas.KEY: "long", areas.SQUARE: "double"}
    schema |= dict.fromkeys(levels, "int") | dict.fromkeys(names, "double")

    def moved(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        work = received(data_of(given))
        for place, rows in _ranges(work, batches):
            found = area_errors.moves(work.plan, rows, known, place=place)
            told = rows[[areas.KEY, areas.SQUARE, *levels]]
            numbers = pd.DataFrame(found, columns=names)
            table = pa.Table.from_pandas(pd.concat([told, numbers], axis=1), preserve_index=False)
            yield from table.to_batches()

    def added(batches: Iterator[Any]) -> bytes | None:
        import pyarrow as pa

        held = list(batches)
        if not held:
            return None
        rows = pa.Table.from_batches(held).to_pandas()
        key, square, *codes = (rows[name].to_numpy() for name in (areas.KEY, areas.SQUARE, *levels))
        plan = received(data_of(given)).plan
        return _bytes(area_errors.squares(plan, key, square, codes, rows[names].to_numpy()))

    cells = work.rows * len(areas.edges(work.plan)) * len(schema)
    parts = replies(
        made.mapInArrow(moved, _written(schema)).repartition(1 + cells // MOVED_CELLS, areas.KEY), added
    )
    found: FloatArray = np.sum([_read(part) for part in parts], axis=0)
    return found


def _bytes(numbers: FloatArray) -> bytes:
    out = io.BytesIO()
    np.save(out, numbers)
    return out.getvalue()


def _read(data: bytes) -> FloatArray:
    found: FloatArray = np.load(io.BytesIO(data), allow_pickle=False)
    return found
