"""Digests: what makes two things "the same", whatever the storage, the machine or the thread count.

Every digest is the lower-case hexadecimal SHA-256 of canonical bytes that start with the name of the
algorithm (``frame-v1``, ``table-v1``, ``directory-v1``): a changed rule gets a new name, an old digest is
never reinterpreted.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import struct
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.canonical import canonical_json
from explain_step.canonical_columns import Arrays, Column, Floats, Keys, column_of, exact_floats, mixed
from explain_step.errors import InvalidInput
from explain_step.hashes import sha256_bytes, sha256_file
from explain_step.types import FloatArray, IntArray

FRAME_ALGORITHM = "frame-v1"
TABLE_ALGORITHM = "table-v1"
DIRECTORY_ALGORITHM = "directory-v1"
ROWSET_ALGORITHM = "rowset-v2"
MOST_THREADS = 4
"""Each holds the bytes of one column."""
CELLS_FOR_THREADS = 500_000
SIGNIFICANT_DIGITS = 6
"""Digits of a number that enter `table_digest`."""
ABSOLUTE_STEP = -9
"""Numbers are told apart in steps of at least 10**-9: below is rounding noise of quantities near one ..."""
COLUMN_DIGITS = 7
"""... and of about 10**-7 of the largest number of their column: the rest is cancellation noise."""


def directory_digest(path: str | Path, exclude: Collection[str] = ("explanations",)) -> str:
    """Return one digest over every file of a directory: sorted relative paths and their SHA-256.

    Parameters
    ----------
    path : path
        For a logged model: its downloaded folder.
    exclude : collection of str
        Names of direct children that do not count. The file ``registered_model_meta``, which MLflow's
        client adds to a download of a registered version, never counts: it is not part of the logged model.
        A folder of that name does.

    Raises
    ------
    InvalidInput
        There is no such directory, it holds no file, or it holds a link or a special file: what a link
        points to could change without a byte of the directory changing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "MLmodel").write_text("flavors: {}")
    ...     len(directory_digest(folder))
    64
    """
    root = Path(path)
    if not root.is_dir():
        msg = f"Argument path must be a directory, got {str(path)!r}."
        raise InvalidInput(msg)
    files = sorted(
        (entry.relative_to(root).as_posix(), entry)
        for child in root.iterdir()
        if child.name not in exclude and not _of_download(child)
        for entry in _regular_files(child)
    )
    if not files:
        msg = f"Directory {str(path)!r} holds no file that could be digested."
        raise InvalidInput(msg)
    lines = [[name, sha256_file(entry)] for name, entry in files]
    return sha256_bytes(canonical_json([DIRECTORY_ALGORITHM, lines]))


def _of_download(child: Path) -> bool:
    return child.name == "registered_model_meta" and stat.S_ISREG(child.lstat().st_mode)


def _regular_files(path: Path) -> Iterator[Path]:
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        with os.scandir(path) as entries:
            for entry in entries:
                yield from _regular_files(Path(entry.path))
    elif stat.S_ISREG(mode):
        yield path
    else:
        msg = f"A digested directory must hold regular files only; {str(path)!r} is a link or a special file."
        raise InvalidInput(msg)


def frame_digest(frame: pd.DataFrame) -> str:
    """Return a digest of the content of a frame: names, logical types, values, row order.

    The same for any storage of the same content: pandas ``object``, ``str`` and Arrow strings; nullable and
    plain numbers; ns and us timestamps; chunks; files. Different for a changed cell, a renamed or moved
    column, moved rows, and another logical type (``int64`` against ``int32``, numbers against text, a
    category against its text). NaN is a missing value, ``-0.0`` is ``0.0``, and the levels of an unordered
    category count only where they occur. The index does not count.

    Parameters
    ----------
    frame : DataFrame of n rows

    Raises
    ------
    InvalidInput
        A column holds Python objects that have no canonical form.

    Examples
    --------
    >>> a = pd.DataFrame({"x": pd.Series(["u", None], dtype=object)})
    >>> frame_digest(a) == frame_digest(a.astype("string"))
    True
    """
    return _columns_digest(frame, algorithm=FRAME_ALGORITHM, floats=exact_floats, plain=False)


def table_digest(table: pd.DataFrame) -> str:
    """Return a digest of a result table that ignores rounding noise, for the snapshot id only.

    As `frame_digest`, but a floating-point number counts to six significant digits, in steps of at least 1e-9
    and of about 1e-7 of the column's largest magnitude, and integers of every width are one type: machines
    and thread counts that differ in the last bits give the same id. A number that lies on a rounding boundary
    can still fall on either side of it; with noise of 1e-16 in numbers near one that happens to about one
    number in 10**9. The exact bytes of every table are held by the file digests of the manifest, not by this.
    """
    return _columns_digest(table, algorithm=TABLE_ALGORITHM, floats=_rounded_floats, plain=True)


def rounded(values: Any) -> list[str]:
    """Return numbers as text with the precision that `table_digest` gives a column of them.

    Examples
    --------
    >>> rounded([0.1 + 0.2, 0.3, 3e-17, float("nan")])
    ['300000e-6', '300000e-6', '0e0', 'nan']
    >>> rounded([1e6, 1.6e-9])
    ['100000e1', '0e0']
    """
    array = np.asarray(values, dtype=np.float64)
    mantissa, exponent = _quantised(array, floor=_floor(array))
    return [
        f"{m}e{e}" if math.isfinite(v) else str(float(v))
        for v, m, e in zip(array, mantissa, exponent, strict=True)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameDigests:
    """Digests of one frame, made in one pass.

    Attributes
    ----------
    whole : str
        `frame_digest` of the frame.
    columns : tuple of str
        `frame_digest` of each column as a frame of its own, by position.
    rowset : str, optional
        The same for the same rows in any order; how often a row occurs counts. None where it was not asked for.
    """

    whole: str
    columns: tuple[str, ...]
    rowset: str | None = None


def frame_digests(frame: pd.DataFrame, *, rowset: bool = False) -> FrameDigests:
    """Return the digest of a frame, one per column and, where asked for, one that ignores the order of the rows.

    Parameters
    ----------
    frame : DataFrame of n rows
    rowset : bool
        The order-free digest (``rowset-v2``): the rows are sorted by a 64-bit number of their values and digested
        as `frame_digest` does, so that other rows have another digest by the strength of SHA-256. Should two unlike
        rows share that number (about one in 40 million frames of a million rows), their order would count. All columns are
        held at once: about as much memory as the frame.

    Raises
    ------
    InvalidInput
        A column holds Python objects that have no canonical form.

    Examples
    --------
    >>> a = pd.DataFrame({"x": [1, 2], "y": ["u", None]})
    >>> b = frame_digests(a.iloc[::-1], rowset=True)
    >>> b.rowset == frame_digests(a, rowset=True).rowset, b.whole == frame_digest(a)
    (True, False)
    """
    with ThreadPoolExecutor(_threads(frame)) as pool:  # hashing and moving arrays lets other threads run
        found = list(pool.map(lambda k: _looked_at(frame, k, keyed=rowset), range(frame.shape[1])))
        order = _order([keys for _, _, keys in found], rows=len(frame)) if rowset else None
        moved = (
            list(pool.map(lambda each: _part(each[0].label, each[1].take(order)), found)) if rowset else []
        )
    parts = [part for part, _, _ in found]
    return FrameDigests(
        whole=_joined(FRAME_ALGORITHM, parts, rows=len(frame)),
        columns=tuple(_joined(FRAME_ALGORITHM, [part], rows=len(frame)) for part in parts),
        rowset=_joined(ROWSET_ALGORITHM, moved, rows=len(frame)) if rowset else None,
    )


def _threads(frame: pd.DataFrame) -> int:
    """Return how many columns are looked at at once; the digests do not depend on it."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_THREADS) if frame.size >= CELLS_FOR_THREADS else 1


def _looked_at(frame: pd.DataFrame, position: int, *, keyed: bool) -> tuple[_Part, Any, Any]:
    """Return the digest of a column and, where rows are to be sorted, its content and a number per row."""
    column = _canonical(frame, position)
    part = _part(frame.columns[position], column)
    return (part, column, column.keys()) if keyed else (part, None, None)


def _order(keys: Sequence[Keys], *, rows: int) -> IntArray:
    """Return the order of the rows by the numbers of all their values."""
    together = np.zeros(rows, dtype=np.uint64)
    for own in keys:
        together = mixed(together, own)
    return np.argsort(together)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    label: Any
    logical: str
    sha256: str


def _columns_digest(frame: pd.DataFrame, *, algorithm: str, floats: Floats, plain: bool) -> str:
    parts = [
        _part(frame.columns[k], _canonical(frame, k, floats=floats, plain=plain))
        for k in range(frame.shape[1])
    ]
    return _joined(algorithm, parts, rows=len(frame))


def _canonical(
    frame: pd.DataFrame, position: int, *, floats: Floats = exact_floats, plain: bool = False
) -> Column:
    try:
        return column_of(frame.iloc[:, position], floats=floats, plain=plain)
    except InvalidInput as error:
        msg = f"Column {frame.columns[position]!r} cannot be digested: {error}"
        raise InvalidInput(msg) from error


def _part(label: Any, column: Column) -> _Part:
    one = hashlib.sha256()
    for buffer in column.buffers():
        one.update(struct.pack("<q", len(buffer)))
        one.update(buffer)
    return _Part(label=label, logical=column.logical, sha256=one.hexdigest())


def _joined(algorithm: str, parts: Sequence[_Part], *, rows: int) -> str:
    header = [algorithm, rows, *([_name(part.label), part.logical] for part in parts)]
    return sha256_bytes(canonical_json([header, [part.sha256 for part in parts]]))


def _name(label: Any) -> str:
    text = label if isinstance(label, str) else f"{type(label).__name__}:{label}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _floor(values: FloatArray) -> int:
    """Return the decimal exponent of the smallest step between the numbers of a column."""
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size or finite.max() == 0:
        return ABSOLUTE_STEP
    # three digits first: the largest probability may be 1 or just below it, and both must give one step
    exponent = int(f"{finite.max():.2e}".partition("e")[2])
    return max(ABSOLUTE_STEP, exponent - COLUMN_DIGITS)


def _rounded_floats(values: FloatArray) -> Arrays:
    mantissa, exponent = _quantised(values, floor=_floor(values))
    infinite = np.where(np.isinf(values), np.sign(values), 0).astype(np.int8)
    return mantissa.astype(np.int64), exponent.astype(np.int16), infinite


def _quantised(values: npt.NDArray[np.float64], *, floor: int) -> tuple[IntArray, IntArray]:
    """Write each value as integer mantissa (at most six digits) and decimal exponent (``floor`` or more)."""
    flat = np.where(np.isfinite(values), values, 0.0)
    magnitude = np.abs(flat)
    log = np.log10(magnitude, out=np.full(flat.shape, -400.0), where=magnitude > 0)
    exponent = np.maximum(np.floor(log).astype(np.int64) - (SIGNIFICANT_DIGITS - 1), floor)
    mantissa = np.rint(_scaled(flat, -exponent)).astype(np.int64)
    # log10 may fall on either side of a power of ten: a mantissa of seven digits is the same number, written
    # differently
    carry = np.abs(mantissa) >= 10**SIGNIFICANT_DIGITS
    mantissa = np.where(carry, np.rint(mantissa / 10).astype(np.int64), mantissa)
    exponent = np.where(mantissa == 0, 0, exponent + carry)
    return mantissa, exponent


def _scaled(values: FloatArray, power: IntArray) -> FloatArray:
    """``values * 10**power`` in two steps, so that neither factor overflows."""
    half = power // 2
    result = values * np.power(10.0, half) * np.power(10.0, power - half)
    return np.asarray(result, dtype=np.float64)
