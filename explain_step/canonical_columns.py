"""Columns of a frame as values that do not depend on how they are stored: what the digests of frames are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.canonical import canonical_json, plain_json
from explain_step.errors import InvalidInput
from explain_step.types import FloatArray, IntArray

Arrays = tuple[npt.NDArray[Any], ...]
BoolArray = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]
Floats = Callable[[FloatArray], Arrays]
"""How floating-point numbers are written: exactly, or without their rounding noise."""
_TEXT_MODULES = frozenset({"datetime", "decimal", "uuid", "fractions", "ipaddress", "pathlib"})
_ODD = np.uint64(0x9E3779B97F4A7C15)
_BASE = 0x100000001B3
_TEXT_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """The content of one column of n rows.

    Attributes
    ----------
    logical : str
        Type of the content, such as ``int64``, ``text``, ``category<text>``.
    missing : bool array of shape (n,)
    numbers : tuple of arrays of shape (n,)
        Of a fixed width, zero where a value is missing; empty for text.
    texts : pyarrow.LargeBinaryArray, optional
        UTF-8 of the values that are not missing, in order.
    levels : tuple of bytes
        The levels of an ordered category.
    """

    logical: str
    missing: BoolArray
    numbers: Arrays = ()
    texts: Any = None
    levels: tuple[bytes, ...] = ()

    def buffers(self) -> tuple[bytes, ...]:
        """Return canonical bytes: which values are missing, the values, the levels."""
        parts = [_bytes(self.missing), *(_bytes(array) for array in self.numbers)]
        if self.texts is not None:
            parts += [_bytes(part) for part in _lengths_and_bytes(self.texts)]
        return (*parts, *self.levels)

    def take(self, order: IntArray) -> Column:
        """Return the same content with its rows in another order."""
        missing = self.missing[order]
        texts = self.texts
        if texts is not None:
            import pyarrow as pa

            positions = np.cumsum(~self.missing) - 1
            texts = texts.take(pa.array(positions[order[~missing]]))
        return replace(self, missing=missing, numbers=tuple(a[order] for a in self.numbers), texts=texts)

    def keys(self) -> Keys:
        """Return a 64-bit number per row that depends on the value alone. Unlike values rarely share one."""
        keys = np.zeros(len(self.missing), dtype=np.uint64)
        for i, array in enumerate(self.numbers):
            wide = (array if array.dtype.kind == "f" else array.astype(np.int64)).view(np.uint64)
            keys = mixed(keys, wide) if i else wide
        if self.texts is not None:
            keys[~self.missing] = _text_keys(self.texts)
        return np.where(self.missing, _ODD, keys) if self.missing.any() else keys


def mixed(keys: Keys, more: Keys) -> Keys:
    """Return ``keys`` with another number of the same row mixed in."""
    found = keys * _ODD  # wraps, as it should
    found ^= more
    found *= _ODD
    found ^= found >> np.uint64(29)
    return found


def exact_floats(values: FloatArray) -> Arrays:
    """Write floating-point numbers exactly; NaN is missing, ``-0.0`` is ``0.0``."""
    flat = values + 0.0  # adding zero turns -0.0 into 0.0
    flat[np.isnan(flat)] = 0.0
    return (flat,)


def column_of(column: pd.Series[Any], *, floats: Floats = exact_floats, plain: bool = False) -> Column:
    """Return the content of a column.

    Parameters
    ----------
    column : Series
    floats : callable
        How floating-point numbers are written.
    plain : bool
        Integers of every width are one type, and so are floating-point numbers.

    Raises
    ------
    InvalidInput
        It holds Python objects that have no canonical form.
    """
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _category(column, floats=floats, plain=plain)
    if isinstance(dtype, pd.SparseDtype):
        column = column.astype(dtype.subtype)  # np.asarray gives int64 for every kind of integer
        dtype = column.dtype
    missing = column.isna().to_numpy(dtype=bool)
    kind = getattr(dtype, "kind", "O")
    if kind == "b":
        flat = column.to_numpy(dtype=bool, na_value=False) if missing.any() else column.to_numpy(dtype=bool)
        return Column(logical="bool", missing=missing, numbers=(flat,))
    if kind in "iu":
        return _integers(column, kind, missing=missing, plain=plain)
    if kind == "f" and dtype.itemsize <= 8:
        numbers = floats(column.to_numpy(dtype=np.float64, na_value=np.nan))
        logical = "float64" if plain else f"float{dtype.itemsize * 8}"
        return Column(logical=logical, missing=missing, numbers=numbers)
    if kind in "mM" and not _is_arrow_date(dtype):
        return _times(column, kind, missing=missing)
    return _objects(column, missing=missing)


def _bytes(array: npt.NDArray[Any]) -> bytes:
    if array.dtype == bool:
        return np.packbits(array, bitorder="little").tobytes()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _integers(column: pd.Series[Any], kind: str, *, missing: BoolArray, plain: bool) -> Column:
    dtype: Any = column.dtype
    wide = np.dtype(np.int64 if kind == "i" else np.uint64)
    flat = column.to_numpy(dtype=wide, na_value=0) if column.hasnans else column.to_numpy(wide)
    if plain:
        return Column(logical="integer", missing=missing, numbers=(flat.astype(np.int64),))
    logical = f"{'int' if kind == 'i' else 'uint'}{dtype.itemsize * 8}"
    return Column(logical=logical, missing=missing, numbers=(flat,))


def _times(column: pd.Series[Any], kind: str, *, missing: BoolArray) -> Column:
    """Seconds and nanoseconds: independent of the unit the column happens to be stored in."""
    zone = getattr(column.dtype, "tz", None) or getattr(
        getattr(column.dtype, "pyarrow_dtype", None), "tz", None
    )
    if zone is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    flat = column.to_numpy()
    if flat.dtype.kind != kind:
        flat = flat.astype(f"{kind}8[ns]")
    counts = np.where(missing, 0, flat.view("i8"))
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[np.datetime_data(flat.dtype)[0]]
    seconds, rest = np.divmod(counts, per_second)
    nanos = (rest * (10**9 // per_second)).astype(np.int32)
    name = "timestamp" if kind == "M" else "duration"
    logical = f"{name}[{zone}]" if zone is not None else name
    return Column(logical=logical, missing=missing, numbers=(seconds, nanos))


def _category(column: pd.Series[Any], *, floats: Floats, plain: bool) -> Column:
    dtype: Any = column.dtype
    levels = column_of(pd.Series(dtype.categories), floats=floats, plain=plain)
    if column.hasnans or getattr(dtype.categories.dtype, "kind", "O") == "O":
        found = _of_levels(column, dtype.categories)
    else:
        found = column_of(column.astype(dtype.categories.dtype), floats=floats, plain=plain)
    logical = found.logical
    if logical == "text" and levels.logical != "text":
        logical = levels.logical  # nothing but missing values: the levels tell the type
    if dtype.ordered:
        return replace(found, logical=f"ordered<{logical}>", levels=levels.buffers())
    return replace(found, logical=f"category<{logical}>")


def _of_levels(column: pd.Series[Any], categories: Any) -> Column:
    """Decode a category by its levels, each of which is looked at once."""
    codes = column.cat.codes.to_numpy(dtype=np.int64)
    missing = codes < 0
    known = codes[~missing]
    used = np.flatnonzero(np.bincount(known, minlength=1)) if len(known) else known
    levels = np.asarray(categories.astype(object), dtype=object)[used]
    positions = np.zeros(int(used.max(initial=0)) + 1, dtype=np.int64)
    positions[used] = np.arange(len(used))
    return _decoded(levels.tolist(), positions[known], missing=missing)


def _objects(column: pd.Series[Any], *, missing: BoolArray) -> Column:
    if _is_arrow_text(column.dtype):
        return Column(logical="text", missing=missing, texts=_of_arrow(column))
    known = column.to_numpy(dtype=object)[~missing].tolist()
    return _decoded(known, None, missing=missing)


def _decoded(values: list[Any], positions: IntArray | None, *, missing: BoolArray) -> Column:
    """Return the column of Python objects; ``positions`` says which of them stands where, None means in order."""
    types = set(map(type, values))
    if types <= {bool, np.bool_} and types:
        found = np.array(values, dtype=bool)
        flat = np.zeros(len(missing), dtype=bool)
        flat[~missing] = found if positions is None else found[positions]
        return Column(logical="bool", missing=missing, numbers=(flat,))
    text = types <= {str}
    texts = _binary(values if text else [_tagged(v) for v in values])
    if positions is not None:
        import pyarrow as pa

        texts = texts.take(pa.array(positions))
    return Column(logical="text" if text else "object", missing=missing, texts=texts)


def _is_arrow_date(dtype: Any) -> bool:
    return isinstance(dtype, pd.ArrowDtype) and dtype.name.startswith("date")


def _is_arrow_text(dtype: Any) -> bool:
    if isinstance(dtype, pd.StringDtype):
        return dtype.storage == "pyarrow"
    kind = str(getattr(dtype, "pyarrow_dtype", ""))
    return kind in ("string", "large_string", "string_view")


def _of_arrow(column: pd.Series[Any]) -> Any:
    """Return the known values of a column that Arrow stores: no Python object is made of any of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    stored = pa.array(column.array)
    wide = pc.drop_null(stored.cast(pa.large_string()).cast(pa.large_binary()))
    return (
        pa.concat_arrays(wide.chunks)
        if isinstance(wide, pa.ChunkedArray) and wide.num_chunks
        else _array(wide)
    )


def _array(found: Any) -> Any:
    import pyarrow as pa

    return pa.array([], type=pa.large_binary()) if isinstance(found, pa.ChunkedArray) else found


def _binary(texts: Sequence[str]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(texts, type=pa.large_string()).cast(pa.large_binary())
    except UnicodeEncodeError:  # a lone surrogate
        encoded = [t.encode("utf-8", "surrogatepass") for t in texts]
        return pa.array(encoded, type=pa.large_binary())


def _lengths_and_bytes(texts: Any) -> Arrays:
    """Lengths in UTF-8 bytes, and the bytes: no separator that a value could imitate."""
    offsets, data = _offsets(texts)
    return np.diff(offsets), data[offsets[0] : offsets[-1]]


def _offsets(texts: Any) -> tuple[IntArray, npt.NDArray[np.uint8]]:
    _, offsets, data = texts.buffers()
    if len(texts) == 0 or offsets is None:
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    found = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    empty = data is None or data.size == 0
    return found, np.zeros(0, dtype=np.uint8) if empty else np.frombuffer(data, dtype=np.uint8)


def _text_keys(texts: Any) -> Keys:
    """Return a 64-bit number per text: a polynomial of its bytes, once per distinct text."""
    coded = texts.dictionary_encode()
    offsets, data = _offsets(coded.dictionary)
    found = [
        _polynomials(offsets[i : i + _TEXT_BLOCK + 1], data)
        for i in range(0, max(len(offsets) - 1, 1), _TEXT_BLOCK)
    ]
    codes = coded.indices.to_numpy(zero_copy_only=False)
    return np.asarray(np.concatenate(found)[codes], dtype=np.uint64)


def _polynomials(offsets: IntArray, data: npt.NDArray[np.uint8]) -> Keys:
    lengths = np.diff(offsets)
    if not len(lengths):
        return np.zeros(0, dtype=np.uint64)
    place = np.arange(offsets[-1] - offsets[0]) - np.repeat(offsets[:-1] - offsets[0], lengths)
    powers = np.cumprod(np.full(int(lengths.max()) + 1, _BASE, dtype=np.uint64))
    terms = (data[offsets[0] : offsets[-1]].astype(np.uint64) + np.uint64(1)) * powers[place]
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(terms, dtype=np.uint64)])
    ends = offsets - offsets[0]
    return mixed(sums[ends[1:]] - sums[ends[:-1]], lengths.astype(np.uint64))


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
