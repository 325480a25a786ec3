"""Areas under the ROC curve of all rows of a Spark DataFrame, exactly.

::

    rows ─▶ executors: score, hit, levels, weight ─▶ shuffled by range of scores ─▶ each range sorted ─▶ sums to the driver

Ranges are cut in the gaps between the sample's scores, so that they do not depend on partitions; a range whose worker dies
is made again by Spark.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from explain_step.metrics import positive_hits, positive_score
from explain_step.spark_frames import blocks, frame_of, replies
from explain_step.spark_work import Work, as_trained, block, data_of, received
from explain_step.streaming import areas
from explain_step.streaming.areas import Areas, Range
from explain_step.streaming.plan import segment_codes
from explain_step.types import Subject

RANGE = "place"
TYPES = {areas.SCORE: "double", areas.HIT: "boolean", areas.ROWS: "double"}
TYPES |= {areas.WEIGHT: "double", areas.SQUARE: "double"}
HELD_ROWS = 1_000_000
"""Rows that an executor reads before it adds up equal ones."""


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
    assert work.plan.measure is not None
    columns, bounded = len(source.columns), work.plan.measure.bounded
    keys = areas.columns_of(work.plan)
    schema = {RANGE: "int", **{key: TYPES.get(key, "int") for key in keys}}
    schema |= {name: TYPES[name] for name in (areas.ROWS, areas.WEIGHT, areas.SQUARE)}

    def scored(batches: Iterator[Any]) -> Iterator[Any]:
        work = received(data_of(given))
        for table in blocks(batches, columns=columns):
            yield from _scored(work, as_trained(frame_of(table, missing=work.missing), work.dtypes))

    def summed(batches: Iterator[Any]) -> bytes | None:
        return _summed(received(data_of(given)), batches)

    made = source.mapInArrow(scored, ", ".join(f"{name} {kind}" for name, kind in schema.items()))
    ranges = len(work.plan.measure.edges or ()) + 1
    parts = replies(made.repartition(math.ceil(ranges / 2), RANGE), summed)
    rows = [row for part in parts for row in np.load(io.BytesIO(part), allow_pickle=False)]
    return areas.joined([Range.from_row(row) for row in rows], unit=bounded) if rows else None


def _scored(work: Work, frame: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of a block with what areas need of them, equal ones added up."""
    import pyarrow as pa

    measure = work.plan.measure
    assert measure is not None
    rows = _rows(work, block(work, frame))
    found = areas.gathered(rows, areas.columns_of(work.plan))
    place = np.searchsorted(np.asarray(measure.edges), found[areas.SCORE].to_numpy(), side="right")
    found.insert(0, RANGE, place.astype(np.int32))
    yield from pa.Table.from_pandas(found, preserve_index=False).to_batches()


def _rows(work: Work, subject: Subject) -> pd.DataFrame:
    """Return score, hit, levels and weight of the rows that have weight."""
    plan, n = work.plan, len(subject.X)
    w = np.ones(n) if subject.weights is None else subject.weights
    found = {
        areas.SCORE: positive_score(subject.response, subject.model).astype(np.float64),
        areas.HIT: positive_hits(subject.y, subject.model),
    }
    for i, segment in enumerate(plan.segments):
        codes = segment_codes(segment, subject.frame, output=subject.response.output)
        found[areas.level_name(i)] = codes.astype(np.int32)
    found |= {areas.ROWS: np.ones(n), areas.WEIGHT: w, areas.SQUARE: w**2}
    return pd.DataFrame(found)[w > 0]


def _summed(work: Work, batches: Iterator[Any]) -> bytes | None:
    """Return the sums of the ranges of a partition."""
    held: dict[int, list[pd.DataFrame]] = {}
    for batch in batches:
        for place, rows in batch.to_pandas().groupby(RANGE, sort=False):
            _hold(held.setdefault(int(place), []), rows, keys=areas.columns_of(work.plan))
    if not held:
        return None
    assert work.plan.measure is not None
    found = [
        areas.of_range(
            work.plan,
            areas.gathered(pd.concat(parts), areas.columns_of(work.plan)),
            place=place,
            unit=work.plan.measure.bounded,
        ).to_row()
        for place, parts in sorted(held.items())
    ]
    out = io.BytesIO()
    np.save(out, np.stack(found))
    return out.getvalue()


def _hold(parts: list[pd.DataFrame], rows: pd.DataFrame, *, keys: list[str]) -> None:
    """Keep rows of a range; equal ones are added up whenever there are many."""
    parts.append(rows)
    if sum(map(len, parts)) > HELD_ROWS and len(parts) > 1:
        parts[:] = [areas.gathered(pd.concat(parts), keys)]
