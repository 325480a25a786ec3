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
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.canonical import canonical_json, plain_json
from explain_step.errors import InvalidInput
from explain_step.types import FloatArray, IntArray

FRAME_ALGORITHM = "frame-v1"
TABLE_ALGORITHM = "table-v1"
DIRECTORY_ALGORITHM = "directory-v1"
SIGNIFICANT_DIGITS = 6
"""Digits of a number that enter `table_digest`."""
ABSOLUTE_STEP = -9
"""Numbers are told apart in steps of at least 10**-9: below is rounding noise of quantities near one ..."""
COLUMN_DIGITS = 7
"""... and of about 10**-7 of the largest number of their column: the rest is cancellation noise."""
_TEXT_MODULES = frozenset({"datetime", "decimal", "uuid", "fractions", "ipaddress", "pathlib"})


def sha256_bytes(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in blocks."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


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
    return _columns_digest(frame, algorithm=FRAME_ALGORITHM, floats=_exact_floats)


def table_digest(table: pd.DataFrame) -> str:
    """Return a digest of a result table that ignores rounding noise, for the snapshot id only.

    As `frame_digest`, but a floating-point number counts to six significant digits, in steps of at least 1e-9
    and of about 1e-7 of the column's largest magnitude, and integers of every width are one type: machines
    and thread counts that differ in the last bits give the same id. A number that lies on a rounding boundary
    can still fall on either side of it; with noise of 1e-16 in numbers near one that happens to about one
    number in 10**9. The exact bytes of every table are held by the file digests of the manifest, not by this.
    """
    return _columns_digest(table, algorithm=TABLE_ALGORITHM, floats=_rounded_floats)


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


_Floats = Callable[[FloatArray], tuple[bytes, ...]]


def _columns_digest(frame: pd.DataFrame, *, algorithm: str, floats: _Floats) -> str:
    whole = hashlib.sha256()
    header: list[Any] = [algorithm, len(frame)]
    parts: list[str] = []
    for position in range(frame.shape[1]):
        column = frame.iloc[:, position]
        try:
            logical, buffers = _column(column, algorithm=algorithm, floats=floats)
        except InvalidInput as error:
            msg = f"Column {frame.columns[position]!r} cannot be digested: {error}"
            raise InvalidInput(msg) from error
        header.append([_name(frame.columns[position]), logical])
        one = hashlib.sha256()
        for buffer in buffers:
            one.update(struct.pack("<q", len(buffer)))
            one.update(buffer)
        parts.append(one.hexdigest())
    whole.update(canonical_json([header, parts]))
    return whole.hexdigest()


def _name(label: Any) -> str:
    text = label if isinstance(label, str) else f"{type(label).__name__}:{label}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _column(column: pd.Series[Any], *, algorithm: str, floats: _Floats) -> tuple[str, tuple[bytes, ...]]:
    """Return logical type and canonical buffers of one column."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _category(column, algorithm=algorithm, floats=floats)
    if isinstance(dtype, pd.SparseDtype):
        column = pd.Series(np.asarray(column))
        dtype = column.dtype
    missing = column.isna().to_numpy(dtype=bool)
    validity = np.packbits(missing, bitorder="little").tobytes()
    kind = getattr(dtype, "kind", "O")
    if kind == "b":
        flat = column.to_numpy(dtype=bool, na_value=False) if missing.any() else column.to_numpy(dtype=bool)
        return "bool", (validity, np.packbits(flat, bitorder="little").tobytes())
    if kind in "iu":
        return _integers(column, kind, validity=validity, widen=algorithm == TABLE_ALGORITHM)
    if kind == "f" and dtype.itemsize <= 8:
        flat = column.to_numpy(dtype=np.float64, na_value=np.nan)
        logical = "float64" if algorithm == TABLE_ALGORITHM else f"float{dtype.itemsize * 8}"
        return logical, (validity, *floats(flat))
    if kind in "mM":
        return _times(column, kind, missing=missing, validity=validity)
    return _objects(column, missing=missing, validity=validity)


def _integers(
    column: pd.Series[Any], kind: str, *, validity: bytes, widen: bool
) -> tuple[str, tuple[bytes, ...]]:
    dtype: Any = column.dtype
    wide = "<i8" if kind == "i" else "<u8"
    flat = (
        column.to_numpy(dtype=np.dtype(wide), na_value=0)
        if column.hasnans
        else column.to_numpy(np.dtype(wide))
    )
    if widen:
        return "integer", (validity, flat.astype("<i8").tobytes())
    return f"{'int' if kind == 'i' else 'uint'}{dtype.itemsize * 8}", (validity, flat.tobytes())


def _exact_floats(values: FloatArray) -> tuple[bytes, ...]:
    flat = np.where(np.isnan(values), 0.0, values) + 0.0  # adding zero turns -0.0 into 0.0
    return (flat.astype("<f8").tobytes(),)


def _floor(values: FloatArray) -> int:
    """Return the decimal exponent of the smallest step between the numbers of a column."""
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size or finite.max() == 0:
        return ABSOLUTE_STEP
    # three digits first: the largest probability may be 1 or just below it, and both must give one step
    exponent = int(f"{finite.max():.2e}".partition("e")[2])
    return max(ABSOLUTE_STEP, exponent - COLUMN_DIGITS)


def _rounded_floats(values: FloatArray) -> tuple[bytes, ...]:
    mantissa, exponent = _quantised(values, floor=_floor(values))
    infinite = np.where(np.isinf(values), np.sign(values), 0).astype("<i1")
    return mantissa.astype("<i8").tobytes(), exponent.astype("<i2").tobytes(), infinite.tobytes()


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


def _category(column: pd.Series[Any], *, algorithm: str, floats: _Floats) -> tuple[str, tuple[bytes, ...]]:
    dtype: Any = column.dtype
    levels, level_buffers = _column(pd.Series(dtype.categories), algorithm=algorithm, floats=floats)
    decoded = column.astype(dtype.categories.dtype if not column.hasnans else object)
    logical, buffers = _column(decoded, algorithm=algorithm, floats=floats)
    if logical == "text" and levels != "text":
        logical = levels  # nothing but missing values: the levels tell the type
    if dtype.ordered:
        return f"ordered<{logical}>", (*buffers, *level_buffers)
    return f"category<{logical}>", buffers


def _times(
    column: pd.Series[Any], kind: str, *, missing: npt.NDArray[np.bool_], validity: bytes
) -> tuple[str, tuple[bytes, ...]]:
    """Seconds and nanoseconds: independent of the unit the column happens to be stored in."""
    zone = getattr(column.dtype, "tz", None) or getattr(
        getattr(column.dtype, "pyarrow_dtype", None), "tz", None
    )
    if zone is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    flat = column.to_numpy()
    if flat.dtype.kind != kind:
        flat = flat.astype(f"{kind}8[ns]")
    unit = np.datetime_data(flat.dtype)[0]
    counts = np.where(missing, 0, flat.view("i8"))
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    seconds, rest = np.divmod(counts, per_second)
    nanos = rest * (10**9 // per_second)
    name = "timestamp" if kind == "M" else "duration"
    logical = f"{name}[{zone}]" if zone is not None else name
    return logical, (validity, seconds.astype("<i8").tobytes(), nanos.astype("<i4").tobytes())


def _objects(
    column: pd.Series[Any], *, missing: npt.NDArray[np.bool_], validity: bytes
) -> tuple[str, tuple[bytes, ...]]:
    values = column.to_numpy(dtype=object)
    known = values[~missing].tolist()
    if all(type(v) is str for v in known):
        return "text", (validity, *_text_buffers(known))
    if all(type(v) is bool or type(v) is np.bool_ for v in known):
        flat = np.zeros(len(values), dtype=bool)
        flat[~missing] = np.array(known, dtype=bool)
        return "bool", (validity, np.packbits(flat, bitorder="little").tobytes())
    return "object", (validity, *_text_buffers([_tagged(v) for v in known]))


def _text_buffers(texts: list[str]) -> tuple[bytes, bytes]:
    """Lengths in UTF-8 bytes, and the bytes: no separator that a value could imitate."""
    encoded = [t.encode("utf-8", "surrogatepass") for t in texts]
    return np.fromiter(map(len, encoded), dtype="<i8", count=len(encoded)).tobytes(), b"".join(encoded)


def _tagged(value: Any) -> str:
    """One Python object as text that tells its type: ``int:1`` is not ``str:1``."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return f"str:{value}"
    if isinstance(value, bytes):
        return f"bytes:{value.hex()}"
    if isinstance(value, bool | int):
        return f"{type(value).__name__}:{int(value)}"
    if isinstance(value, float | complex):
        return f"{type(value).__name__}:{value!r}"
    if isinstance(value, np.ndarray | list | tuple | set | frozenset | Mapping):
        return f"json:{canonical_json(plain_json(value)).decode('utf-8')}"
    module = type(value).__module__.partition(".")[0]
    if module in _TEXT_MODULES or module == "pandas":
        return f"{type(value).__name__}:{value}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    msg = f"it holds {kind} objects; convert them to numbers or text."
    raise InvalidInput(msg)
