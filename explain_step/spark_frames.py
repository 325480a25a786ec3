"""Spark DataFrames: blocks of rows as pandas frames on the executors, and one small reply per partition for the driver."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd

from explain_step import errors
from explain_step.config import names as quoted
from explain_step.errors import ExplainStepError, InvalidInput, MissingDependency

BLOCK_ROWS, BLOCK_CELLS = 1 << 16, 1 << 22
"""An executor holds at most so many rows, and cells, of a partition at a time."""
MODULE = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")
LARGE = re.compile(
    r"Total size of serialized results of .*?\((.*?)\) is bigger than spark\.driver\.maxResultSize \((.*?)\)"
)
REPLY = "part binary, problem string"
PLAIN_TYPES = "numbers, text, booleans, dates and times"
NO_VALUES = frozenset({"array", "map", "struct", "binary", "udt", "variant", "void", "time"})
NO_VALUES |= {"interval", "daytimeinterval", "yearmonthinterval", "calendarinterval"}

Worker = Callable[[Iterator[Any]], Iterator[Any]]


def is_spark(source: Any) -> bool:
    """Return whether an object is a Spark DataFrame (classic or of Spark Connect); nothing is imported."""
    kinds = {(t.__module__.partition(".")[0], t.__name__) for t in type(source).__mro__}
    return ("pyspark", "DataFrame") in kinds and hasattr(source, "mapInArrow")


# --- on the executors


def blocks(batches: Iterator[Any], *, columns: Sequence[str]) -> Iterator[Any]:
    """Yield Arrow tables of a bounded number of rows from a partition's record batches, with these names of columns."""
    import pyarrow as pa

    names = list(columns)
    most = max(1, min(BLOCK_ROWS, BLOCK_CELLS // max(1, len(names))))
    held: list[Any] = []
    left = most
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            part = batch.slice(start, left)
            held.append(part)
            start, left = start + part.num_rows, left - part.num_rows
            if not left:
                yield pa.Table.from_batches(held).rename_columns(names)
                held, left = [], most
    if held:
        yield pa.Table.from_batches(held).rename_columns(names)


def frame_of(table: Any, *, missing: frozenset[str] = frozenset()) -> pd.DataFrame:
    """Return an Arrow table from Spark as a pandas frame, with dtypes that do not depend on the block.

    Parameters
    ----------
    table : pyarrow.Table
    missing : frozenset of str
        Columns with a missing value in any row of the whole: their integers are floating-point numbers, as pandas
        would have them, in every block.

    Notes
    -----
    Decimals become floating-point numbers, dates become timestamps, and timestamps are of the session's time zone,
    without saying so, as ``toPandas`` has them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if kinds.is_decimal(
            kind
        ):  # by way of text, which gives the nearest number; Arrow's own cast does not
            columns.append(column.cast(pa.string()).cast(pa.float64()))
        elif kinds.is_integer(kind) and name in missing:
            columns.append(column.cast(pa.float64(), safe=False))
        elif kinds.is_timestamp(kind) and kind.tz is not None:
            columns.append(pc.local_timestamp(column))
        else:
            columns.append(column)
    frame: pd.DataFrame = pa.table(columns, names=table.column_names).to_pandas(date_as_object=False)
    booleans = [n for n in frame.columns if n in missing and kinds.is_boolean(table.column(n).type)]
    return frame.astype(dict.fromkeys(booleans, object))


def answering(work: Callable[[Iterator[Any]], bytes | None]) -> Worker:
    """Return a worker of ``mapInArrow`` that replies with one summary, or with the error that the rows give cause for.

    An error of this package says the same at every attempt: it is reported once instead of failing the task four times.
    """

    def reply(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        part, problem = None, None
        try:
            part = work(batches)
        except ExplainStepError as error:
            for _ in batches:  # Spark expects its input to be read
                pass
            problem = json.dumps([type(error).__name__, str(error)])
        if part is not None or problem is not None:
            given = [pa.array([part], type=pa.binary()), pa.array([problem], type=pa.string())]
            yield pa.RecordBatch.from_arrays(given, names=["part", "problem"])

    return reply


# --- on the driver


def numbered(source: Any) -> Any:
    """Return a Spark DataFrame with numbers for names: it does not find columns with dots, or that differ in case only."""
    return source.toDF(*(f"c{k}" for k in range(len(source.columns))))


def replies(
    frame: Any,
    work: Callable[[Iterator[Any]], bytes | None],
    *,
    merge: Callable[[list[bytes]], bytes] | None = None,
    parts: int = 1,
) -> list[bytes]:
    """Run ``work`` on every partition and return the summaries in the order of partitions.

    Parameters
    ----------
    frame : Spark DataFrame
    work : callable
        Record batches of a partition to its summary, or None.
    merge : callable, optional
        Merges summaries on the executors first, in about ``sqrt(parts)`` groups, so that few reach the driver.
    parts : int
        Number of partitions.

    Raises
    ------
    ExplainStepError
        A partition reported it.
    """
    made = frame.mapInArrow(answering(work), REPLY)
    if merge is not None:
        made = made.repartition(math.isqrt(parts) + 1).mapInArrow(
            answering(partial(_joined, merge=merge)), REPLY
        )
    with fetching():
        rows = made.collect()
    for row in rows:
        if row["problem"] is not None:
            kind, text = json.loads(row["problem"])
            raise getattr(errors, kind, ExplainStepError)(text)
    return [bytes(row["part"]) for row in rows]


def _joined(batches: Iterator[Any], *, merge: Callable[[list[bytes]], bytes]) -> bytes | None:
    found: bytes | None = None
    for batch in batches:
        for reply in batch.to_pylist():
            if reply["problem"] is not None:
                kind, text = json.loads(reply["problem"])
                raise getattr(errors, kind, ExplainStepError)(text)
            found = reply["part"] if found is None else merge([found, reply["part"]])
    return found


@contextmanager
def fetching() -> Iterator[None]:
    """Say so where the executors lack what runs there, or the driver may not take what they answer."""
    try:
        yield
    except Exception as error:
        lacking, large = MODULE.search(str(error)), LARGE.search(str(error))
        if lacking is not None:
            msg = (
                f"The Python of Spark's executors has no module {lacking[1]!r}; install explain-step with the model's "
                "library there, or set PYSPARK_PYTHON to a Python that has them before the session starts."
            )
            raise MissingDependency(msg) from error
        if large is not None:
            msg = (
                f"Argument X must have so few partitions that their summaries, and a sample of the rows, fit into "
                f"spark.driver.maxResultSize ({large[2]}), got {large[1]}; give fewer partitions (X.coalesce) or start the "
                "session with a larger spark.driver.maxResultSize."
            )
            raise InvalidInput(msg) from error
        raise


def check_columns(source: Any) -> None:
    """Refuse columns that hold no plain values, and names that are used twice."""
    odd = [
        f"{item.name!r} ({item.dataType.simpleString()[:40]})"
        for item in source.schema.fields
        if item.dataType.typeName().partition("(")[0] in NO_VALUES
    ]
    if odd:
        msg = (
            f"Argument X must hold {PLAIN_TYPES}; the Spark DataFrame has {', '.join(odd[:5])}; drop or unpack "
            "such columns (X.drop, X.select)."
        )
        raise InvalidInput(msg)
    twice = sorted({name for name in source.columns if source.columns.count(name) > 1})
    if twice:
        msg = f"Column names of argument X must be unique, got {quoted(twice)} more than once; rename or drop them."
        raise InvalidInput(msg)
