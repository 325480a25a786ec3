"""A digest of rows that can be added up: the same in any order, and merged over parts that are read apart.

Every row gets 2,048 bits from an extendable-output hash of its cells; the digest is made from their sum modulo
``2**2048``, the number of rows and the names of the columns. Parts that are read by different processes are merged by
adding their sums, so the digest does not depend on partitions, files or blocks, and a row that is lost, changed or
counted twice shows.

This is the additive multiset hash of Bellare and Micciancio 1997 (AdHash, doi:10.1007/3-540-69053-0_13) and Clarke
et al. 2003 (MSet-Add-Hash, doi:10.1007/978-3-540-40061-5_12). The sum is that wide because of the generalised birthday
attack of Wagner 2002 (doi:10.1007/3-540-45708-9_19), which takes about ``2**(2 * sqrt(bits))`` steps: ``2**90`` here,
where 256 bits would fall in ``2**32``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.canonical import canonical_json
from explain_step.hashes import sha256_bytes

ALGORITHM = "rowsum-v1"
BYTES = 256
"""Width of the sum."""
CELL = 16
CELLS_AT_ONCE = 1 << 22
LARGEST_INTEGER = 1 << 64
EXACT = 1 << 53
"""Integers up to here are floating-point numbers too; larger ones are looked at one by one."""
_MODULUS = 1 << (8 * BYTES)

Keys = npt.NDArray[np.uint64]
Cells = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSum:
    """The number of some rows and the sum of their hashes. ``a + b`` is that of both parts.

    Examples
    --------
    >>> frame = pd.DataFrame({"x": [1.0, 2.0, None], "y": ["u", "v", "u"]})
    >>> whole = row_sum(frame)
    >>> row_sum(frame.iloc[:1]) + row_sum(frame.iloc[1:]) == whole == row_sum(frame.iloc[::-1])
    True
    >>> row_sum(frame.iloc[[0, 0, 1]]) == whole
    False
    """

    rows: int = 0
    total: int = 0

    def __add__(self, other: RowSum) -> RowSum:
        return RowSum(rows=self.rows + other.rows, total=(self.total + other.total) % _MODULUS)

    def digest(self, columns: Sequence[str]) -> str:
        """Return the digest (64 hexadecimal digits) of these rows under the names of their columns, in order."""
        header = canonical_json([ALGORITHM, self.rows, [_plain(name) for name in columns]])
        return sha256_bytes(header + b"\0" + self.total.to_bytes(BYTES, "little"))

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: the number of rows, then the sum."""
        return self.rows.to_bytes(8, "little") + self.total.to_bytes(BYTES, "little")

    @classmethod
    def from_bytes(cls, data: bytes) -> RowSum:
        """Return what `to_bytes` wrote."""
        return cls(rows=int.from_bytes(data[:8], "little"), total=int.from_bytes(data[8:], "little"))


def row_sum(frame: pd.DataFrame) -> RowSum:
    """Return the sum of the rows of a frame.

    How numbers are stored does not count (1 is 1.0, in any width), nor whether a text is a category; a missing value is
    one, however it is written.
    """
    return summed(row_hashes(frame))


def rowsum_digest(frame: pd.DataFrame) -> str:
    """Return the order-free digest of a frame; the same as that of any partition of its rows.

    Examples
    --------
    >>> a = pd.DataFrame({"x": [1, 2], "y": ["u", None]})
    >>> rowsum_digest(a) == rowsum_digest(a.iloc[::-1].astype({"x": float}))
    True
    """
    return row_sum(frame).digest([str(name) for name in frame.columns])


def row_hashes(frame: pd.DataFrame) -> list[bytes]:
    """Return one hash of `BYTES` bytes per row, a function of the row's values alone."""
    step = max(1, CELLS_AT_ONCE // max(1, frame.shape[1]))
    blocks = (frame.iloc[start : start + step] for start in range(0, len(frame), step))
    return [found for block in blocks for found in _block_hashes(block)]


def _block_hashes(frame: pd.DataFrame) -> list[bytes]:
    cells = np.zeros((len(frame), frame.shape[1], 2), dtype="<u8")
    floats = [k for k, dtype in enumerate(frame.dtypes) if dtype == np.float64]
    if floats:  # together: a column at a time costs more than its values where there are thousands
        cells[:, floats] = _numbers(frame.iloc[:, floats].to_numpy(dtype=np.float64) + 0.0)
    for k in sorted(set(range(frame.shape[1])) - set(floats)):
        cells[:, k] = _cells(frame.iloc[:, k])
    data, width = cells.reshape(-1).view(np.uint8).data, CELL * frame.shape[1]
    starts = range(0, data.nbytes, width)
    # the hash that gives as many bytes as wanted is slow on wide rows, so it is given their SHA-256
    return [hashlib.shake_128(hashlib.sha256(data[i : i + width]).digest()).digest(BYTES) for i in starts]


def summed(hashes: Sequence[bytes]) -> RowSum:
    """Return the sum of row hashes."""
    total = sum(int.from_bytes(one, "little") for one in hashes)
    return RowSum(rows=len(hashes), total=total % _MODULUS)


def row_keys(hashes: Sequence[bytes], *, seed: int) -> Keys:
    """Return a 64-bit number per row from its hash and a seed: rows with the smallest numbers are a random sample.

    Equal rows have equal numbers. The finaliser is that of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195).
    """
    found = np.frombuffer(b"".join(one[:8] for one in hashes), dtype="<u8").astype(np.uint64)
    found ^= _mixed(np.array([seed + 1], dtype=np.uint64))
    return _mixed(found)


def _mixed(values: Keys) -> Keys:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)  # wraps, as it should
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)


def _cells(column: pd.Series[Any]) -> Cells:
    """Return two words per cell: a number is itself, anything else the digest of its type and text."""
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iuf" and dtype.itemsize <= 8:
        values = column.to_numpy()
        if dtype.kind == "f" or not len(values) or (values.max() <= EXACT and int(values.min()) >= -EXACT):
            return _numbers(values.astype(np.float64) + 0.0)
    if getattr(dtype, "kind", "") == "M":
        return _times(column)
    codes, levels = pd.factorize(column, use_na_sentinel=True)
    table = np.frombuffer(b"".join([*map(_cell, levels), _cell(None)]), dtype="<u8").reshape(-1, 2)
    return np.asarray(table[codes])  # a missing value has code -1: the last line


def _numbers(values: npt.NDArray[np.float64]) -> Cells:
    """Write numbers, of any shape: a mark and the bits. ``-0.0`` has to be ``0.0`` already."""
    missing = np.isnan(values)
    bits = np.ascontiguousarray(np.where(missing, 0.0, values), dtype="<f8").view("<u8")
    return np.stack([(~missing).astype("<u8"), bits], axis=-1)


def _times(column: pd.Series[Any]) -> Cells:
    """Write seconds and nanoseconds, in UTC where there is a time zone: the unit of the storage does not count."""
    zone = getattr(column.dtype, "tz", None)
    flat = (column if zone is None else column.dt.tz_convert("UTC").dt.tz_localize(None)).to_numpy()
    if flat.dtype.kind != "M":
        flat = flat.astype("M8[ns]")
    missing = np.isnat(flat)
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[np.datetime_data(flat.dtype)[0]]
    seconds, rest = np.divmod(np.where(missing, 0, flat.view("i8")), per_second)
    mark = np.where(missing, 0, 3 if zone is None else 4).astype(np.uint64)
    nanos = (rest * (10**9 // per_second)).astype(np.uint64)
    return np.stack([mark | nanos << np.uint64(32), seconds.astype(np.int64).view(np.uint64)], axis=-1)


def _cell(value: Any) -> bytes:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None:
        return bytes(CELL)
    if _is_number(value) and float(value) == value:
        return _numbers(np.array([float(value) + 0.0])).tobytes()
    text = _plain(f"{type(value).__name__}:{value}").encode()
    return b"\2" + hashlib.blake2b(text, digest_size=CELL - 1).digest()


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < LARGEST_INTEGER
    return isinstance(value, float)


def _plain(text: str) -> str:
    """Return text that can be encoded: half a surrogate pair is written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
