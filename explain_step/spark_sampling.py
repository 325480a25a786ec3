"""A scan of a Spark DataFrame (how many rows, which digest), and a bounded sample that does not depend on its partitions."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.errors import InvalidInput
from explain_step.row_sums import Keys, RowSum, row_hashes, row_keys, summed
from explain_step.spark_frames import blocks, check_columns, fetching, frame_of, numbered, replies

SAMPLE_ROWS, FEWEST_ROWS, SAMPLE_CELLS = 20_000, 2_000, 25_000_000
"""Rows of the sample that figures, examples and scores are made from: fewer where they have many cells."""
SKETCH = 512
"""Smallest row keys that are kept per partition: they tell how many different rows there are, to about 5%."""
HEAVY = 256
"""Rows that occur in more than one of so many rows are counted apart: a sample by content would have all or none."""
SPARE = 1.5
"""So many times the sample is looked at, as the number of different rows is an estimate."""
KEY, MANY = "explain_step_key", "explain_step_many"

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What one pass tells about some rows; ``a + b`` is that of both parts.

    Attributes
    ----------
    rows : RowSum
        Their number and the sum of their hashes.
    missing : int array of shape (columns,)
        Missing values per column.
    smallest : uint64 array
        The `SKETCH` smallest distinct keys.
    heavy, counts : arrays
        Keys of rows that may occur in more than one of `HEAVY` rows, and at least how often they do.
    parts : int
        Partitions with rows.
    """

    rows: RowSum
    missing: Counts
    smallest: Keys
    heavy: Keys
    counts: Counts
    parts: int = 1

    def __add__(self, other: Scan) -> Scan:
        heavy, counts = _frequent(
            np.concatenate([self.heavy, other.heavy]), np.concatenate([self.counts, other.counts])
        )
        return Scan(
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            smallest=np.unique(np.concatenate([self.smallest, other.smallest]))[:SKETCH],
            heavy=heavy,
            counts=counts,
            parts=self.parts + other.parts,
        )

    def different(self) -> float:
        """Return about how many different rows there are (Bar-Yossef et al. 2002, doi:10.1007/3-540-45726-7_1)."""
        if len(self.smallest) < SKETCH:
            return float(len(self.smallest))
        return (SKETCH - 1) / (float(self.smallest[-1]) / 2.0**64)

    def to_bytes(self) -> bytes:
        """Return the scan as an npz archive without pickles."""
        buffer = io.BytesIO()
        rows = np.frombuffer(self.rows.to_bytes(), dtype=np.uint8)
        np.savez(
            buffer,
            rows=rows,
            missing=self.missing,
            smallest=self.smallest,
            heavy=self.heavy,
            counts=self.counts,
            parts=np.array(self.parts),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Scan:
        """Return what `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        return cls(
            **{name: found[name] for name in ("missing", "smallest", "heavy", "counts")},
            rows=RowSum.from_bytes(found["rows"].tobytes()),
            parts=int(found["parts"]),
        )


def _frequent(keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """Merge counts of keys and keep at most `HEAVY` of them, so that none of a larger share than that is lost.

    The merge of Agarwal et al. 2013 (doi:10.1145/2500128): what is dropped lowers every count that stays.
    """
    distinct, place = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, place.ravel(), counts)
    if len(sums) <= HEAVY:
        return distinct, sums
    left = sums - np.sort(sums)[-HEAVY - 1]
    return distinct[left > 0], left[left > 0]


# --- on the executors


def _scan(table: Any, *, seed: int) -> Scan:
    frame = frame_of(table)
    hashes = row_hashes(frame)
    keys, counts = np.unique(row_keys(hashes, seed=seed), return_counts=True)
    heavy, often = _frequent(keys, counts.astype(np.int64))
    missing = frame.isna().sum().to_numpy(dtype=np.int64)
    return Scan(rows=summed(hashes), missing=missing, smallest=keys[:SKETCH], heavy=heavy, counts=often)


def _chosen(table: Any, *, seed: int, limit: int, heavy: Keys) -> Iterator[Any]:
    """Yield the rows of a block whose key is small or listed, each content once, with its key and how often it occurs."""
    import pyarrow as pa

    hashes = row_hashes(frame_of(table))
    keys = row_keys(hashes, seed=seed)
    wanted = np.flatnonzero((keys <= np.uint64(limit)) | np.isin(keys, heavy))
    full = [int(keys[i]).to_bytes(8, "big") + hashes[i][8:16] for i in wanted]
    found: dict[bytes, list[int]] = {}
    for key, row in zip(full, wanted, strict=True):
        found.setdefault(key, []).append(int(row))
    if found:
        rows = table.take(pa.array([places[0] for places in found.values()], type=pa.int64()))
        rows = rows.rename_columns([f"c{k}" for k in range(rows.num_columns)])
        rows = rows.append_column(KEY, pa.array(list(found), type=pa.binary()))
        many = pa.array([len(places) for places in found.values()], type=pa.int64())
        yield from rows.append_column(MANY, many).to_batches()


# --- on the driver


def scan(source: Any, *, seed: int) -> Scan:
    """Read every row of a Spark DataFrame once: how many, which digest, where values are missing.

    Raises
    ------
    InvalidInput
        There are no rows, or columns that are no plain values.
    """
    check_columns(source)
    columns = source.columns

    def work(batches: Iterator[Any]) -> bytes | None:
        found: Scan | None = None
        for table in blocks(batches, columns=columns):
            part = _scan(table, seed=seed)
            found = part if found is None else _same_partition(found, part)
        return None if found is None else found.to_bytes()

    parts = [Scan.from_bytes(part) for part in replies(numbered(source), work)]
    if not parts:
        msg = "Argument X must have at least one row, got a Spark DataFrame without any; give held-out rows."
        raise InvalidInput(msg)
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


def _same_partition(a: Scan, b: Scan) -> Scan:
    return replace(a + b, parts=a.parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A bounded sample of the rows of a Spark DataFrame.

    Attributes
    ----------
    frame : DataFrame of at most ``rows`` rows
        In the order of their keys; all rows where there are no more.
    scan : Scan
        What was found about all rows.
    missing : frozenset of str
        Columns with missing values in any row.
    """

    frame: pd.DataFrame
    scan: Scan
    missing: frozenset[str] = field(default_factory=frozenset)

    @property
    def whole(self) -> bool:
        """Whether every row is in it."""
        return len(self.frame) == self.scan.rows.rows


def sample(source: Any, *, rows: int = SAMPLE_ROWS, seed: int = 0) -> Sample:
    """Return a random sample of a Spark DataFrame that depends on the rows and the seed alone.

    Which rows are drawn does not depend on partitions, files or order: each row's key is a hash of its content and the
    seed, and the smallest keys are drawn. Equal rows have one key, so each content is drawn with the number of its rows;
    contents that make up more than a part in `HEAVY` of all rows get their share exactly.

    Raises
    ------
    InvalidInput
        There are no rows, or columns that are no plain values.

    Notes
    -----
    Two passes over the data. At most about ``SPARE * rows`` rows are moved between executors, and ``rows`` to the driver.
    """
    found = scan(source, seed=seed)
    different = found.different()
    share = 1.0 if len(found.smallest) < SKETCH else min(1.0, SPARE * rows / different)
    limit = min(2**64 - 1, int(share * 2.0**64))
    table = _fetched(source, seed=seed, limit=limit, found=found, rows=rows)
    missing = frozenset(name for name, many in zip(source.columns, found.missing, strict=True) if many)
    keys = np.array(
        [int.from_bytes(key[:8], "big") for key in table.column(KEY).to_pylist()], dtype=np.uint64
    )
    counts = table.column(MANY).to_numpy().astype(np.int64)
    places = drawn(keys, counts, total=found.rows.rows, rows=rows)
    drawn_rows = table.drop_columns([KEY, MANY]).take(places).rename_columns(source.columns)
    frame = frame_of(drawn_rows, missing=missing)
    return Sample(frame=frame, scan=found, missing=missing)


def drawn(keys: Keys, counts: Counts, *, total: int, rows: int) -> npt.NDArray[np.int64]:
    """Return positions of contents, each as often as it is to stand in a sample of ``rows`` rows.

    Parameters
    ----------
    keys : uint64 array, ascending
    counts : int array
        How many rows have each content.
    total : int
        How many rows there are in all.

    Examples
    --------
    >>> drawn(np.arange(4, dtype=np.uint64), np.array([1, 1, 1, 5]), total=8, rows=8).tolist()
    [0, 1, 2, 3, 3, 3, 3, 3]
    """
    everything = int(counts.sum()) == total
    size = min(rows, total)
    heavy = np.full(len(keys), everything) | (counts * HEAVY > total)
    exact = np.flatnonzero(heavy)
    slots = size if everything else round(size * float(counts[exact].sum()) / total)
    rest = np.flatnonzero(~heavy)[: size - slots]
    places = np.concatenate(
        [_systematic(exact, counts[exact], slots), _systematic(rest, counts[rest], size - slots)]
    )
    return np.sort(places)


def _systematic(places: npt.NDArray[Any], counts: Counts, size: int) -> npt.NDArray[np.int64]:
    """Return ``size`` of the places by their counts, at equal steps along the running count."""
    ends = np.cumsum(counts)
    if not len(ends) or size < 1:
        return np.zeros(0, dtype=np.int64)
    size = min(size, int(ends[-1]))
    steps = (np.arange(size) + 0.5) * (float(ends[-1]) / size)
    return np.asarray(places[np.searchsorted(ends, steps, side="right")], dtype=np.int64)


def _fetched(source: Any, *, seed: int, limit: int, found: Scan, rows: int) -> Any:
    """Return the frequent contents and those with the smallest keys, ordered by key, with their counts."""
    from pyspark.sql import functions as F  # noqa: N812 - as everybody writes it
    from pyspark.sql.types import BinaryType, LongType, StructField, StructType

    names, heavy, plain = source.columns, found.heavy, numbered(source)

    def worker(batches: Iterator[Any]) -> Iterator[Any]:
        for table in blocks(batches, columns=names):
            yield from _chosen(table, seed=seed, limit=limit, heavy=heavy)

    more = [StructField(KEY, BinaryType()), StructField(MANY, LongType())]
    row = F.struct(*(F.col(name) for name in plain.columns))
    contents = (
        plain.mapInArrow(worker, StructType([*plain.schema.fields, *more]))
        .groupBy(KEY)
        .agg(F.sum(MANY).alias(MANY), F.first(row).alias("row"))
    )
    rare = F.col(MANY) * HEAVY <= found.rows.rows
    with fetching():
        table = contents.orderBy(rare, KEY).limit(rows + HEAVY).toArrow()
    return _flat(table.sort_by(KEY), plain.columns)


def _flat(table: Any, names: list[str]) -> Any:
    """Return the columns of the struct ``row`` beside the others."""
    import pyarrow as pa

    rows = table.column("row").combine_chunks()
    rows = rows.chunk(0) if isinstance(rows, pa.ChunkedArray) else rows
    fields = [rows.field(k) for k in range(len(names))]
    return pa.table([*fields, table.column(KEY), table.column(MANY)], names=[*names, KEY, MANY])
