"""Tables as files: plain columns, Parquet bytes, CSV bytes, and the bounded table of attributions."""

from __future__ import annotations

import io
import re
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd

from explain_step.digests import table_digest
from explain_step.errors import InvalidInput
from explain_step.types import Attributions, IntArray, Subject

CSV_ROWS = 2_000
"""Tables up to this length get a CSV twin."""
ATTRIBUTION_ROWS = 2_000
"""Rows of the attributions that go into a snapshot: it is downloaded with every load of the model."""
MAX_CELLS = 2**28
"""Rows times columns of a table that is read; the attributions of 2,000 rows, ten outputs and 10,000 columns fit."""
MAX_TEXT_BYTES = 2**30
PLAIN = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY")
"""Physical types of Parquet. A dictionary of the one that is left out may stand for any number of bytes."""
VALUE_PREFIX = "shap:"
ERROR_PREFIX = "standard_error:"
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def plain_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with nothing but text, bool, integer, float64 and timestamp columns and a fresh index.

    What is read back from Parquet is then what was written: categories are decoded, nullable numbers become
    floats where values are missing, and a column of mixed Python objects becomes text.
    """
    plain = {str(name): _plain_column(table.iloc[:, i]) for i, name in enumerate(table.columns)}
    return pd.DataFrame(plain, index=pd.RangeIndex(len(table)))


def _plain_column(column: pd.Series[Any]) -> pd.Series[Any]:
    column = column.reset_index(drop=True)
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        column = column.astype(object)
    kind = getattr(column.dtype, "kind", "O")
    missing = bool(column.isna().any())
    if kind == "f" or (kind in "iu" and missing):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan))
    if kind in "iu":
        return pd.Series(column.to_numpy(dtype=np.int64))
    if kind == "b" and not missing:
        return pd.Series(column.to_numpy(dtype=bool))
    if kind == "M":
        return column
    return _plain_objects(column)


def _plain_objects(column: pd.Series[Any]) -> pd.Series[Any]:
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    values = column.to_numpy(dtype=object)
    missing = column.isna().to_numpy(dtype=bool)
    if inferred in ("floating", "mixed-integer-float") or (inferred == "integer" and missing.any()):
        return pd.Series(
            [np.nan if m else float(v) for v, m in zip(values, missing, strict=True)], dtype=np.float64
        )
    if inferred == "integer":
        return pd.Series([int(v) for v in values], dtype=np.int64)
    if inferred == "boolean":
        return pd.Series([None if m else bool(v) for v, m in zip(values, missing, strict=True)], dtype=object)
    return pd.Series([None if m else _text(v) for v, m in zip(values, missing, strict=True)], dtype=object)


def _text(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """Return a `plain_table` as Parquet, without the writer's pandas metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    # a text column without a single value is still a text column
    fields = [pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in arrow.schema]
    arrow = arrow.cast(pa.schema(fields))
    sink = io.BytesIO()
    pq.write_table(arrow, sink, compression="zstd")
    return sink.getvalue()


def read_parquet(data: bytes, *, most_cells: int = MAX_CELLS) -> pd.DataFrame:
    """Return the table in Parquet bytes: text is text, also where the file keeps it as a dictionary.

    A few kilobytes can stand for billions of values, so the size is looked at before anything is unfolded.

    Parameters
    ----------
    data : bytes
    most_cells : int
        Rows times columns; more is refused.

    Raises
    ------
    InvalidInput
        More cells (text counts as it is stored, one for each byte), more than a gibibyte of text, or columns that are
        not plain.
    ValueError
        The bytes are not Parquet.
    """
    facts = _parquet_file(data).metadata
    size = _size(facts)
    if size > most_cells:
        rows, wide = _rows(facts), facts.num_columns
        counted = "" if size == rows * wide else f", or {size:,} of its bytes"
        msg = f"A table must have at most {most_cells:,} cells; this has {rows:,} rows of {wide:,}{counted}."
        raise InvalidInput(msg)
    columns = [facts.schema.column(i) for i in range(facts.num_columns)]
    if any(c.path != c.name or c.max_repetition_level or c.physical_type not in PLAIN for c in columns):
        msg = "A table must have plain columns; this has lists, records, or values of a fixed length."
        raise InvalidInput(msg)
    texts = [c.name for c in columns if c.physical_type == "BYTE_ARRAY"]
    table = _parquet_file(data, read_dictionary=texts).read(use_threads=False)
    frame: pd.DataFrame = _unfolded(table).to_pandas(use_threads=False)
    return frame


def size_of(data: bytes) -> int:
    """Return how many cells the table in Parquet bytes takes; text that is stored counts one for each byte."""
    return _size(_parquet_file(data).metadata)


def _size(facts: Any) -> int:
    groups = [facts.row_group(i) for i in range(facts.num_row_groups)]
    columns = [g.column(k) for g in groups for k in range(g.num_columns)]
    text = sum(c.total_uncompressed_size for c in columns if c.physical_type == "BYTE_ARRAY")
    numbers = sum(c.total_uncompressed_size for c in columns if c.physical_type != "BYTE_ARRAY")
    return max(_rows(facts) * int(facts.num_columns), int(numbers) // 8 + int(text))


def _rows(facts: Any) -> int:
    counted = sum(facts.row_group(i).num_rows for i in range(facts.num_row_groups))
    return int(max(facts.num_rows, counted))


def _parquet_file(data: bytes, *, read_dictionary: list[str] | None = None) -> Any:
    """Open Parquet bytes in such a way that no thread of Arrow holds a Python object.

    A thread that lets go of one while the interpreter ends aborts the process
    (https://github.com/apache/arrow/issues/34314).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=read_dictionary, pre_buffer=False)


def _unfolded(table: Any) -> Any:
    """Return an Arrow table with its dictionaries replaced by their values, unless these are too long."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types, text = pa.types, 0
    for i, field in enumerate(table.schema):
        if not types.is_dictionary(field.type):
            continue
        column, kind = table.column(i), field.type.value_type
        if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind):
            lengths = (
                pc.sum(pc.take(pc.binary_length(c.dictionary), c.indices)).as_py() for c in column.chunks
            )
            text += sum(length or 0 for length in lengths)
            if text > MAX_TEXT_BYTES:
                msg = f"Text of a table must have at most {MAX_TEXT_BYTES:,} bytes; with column {i} it has more."
                raise InvalidInput(msg)
        table = table.set_column(i, pa.field(field.name, kind), column.cast(kind))
    return table


def csv_bytes(table: pd.DataFrame) -> bytes:
    r"""Return a `plain_table` as CSV that a spreadsheet shows and does not run.

    Text that a spreadsheet could take for a formula (it starts with ``=``, ``+``, ``-``, ``@``, tab or a
    line break) gets a leading apostrophe, unless it is a number. Numbers have the shortest digits that read
    back; missing is empty.

    Examples
    --------
    >>> csv_bytes(pd.DataFrame({"a": ["=1+1", "-1.5"], "b": [-0.1, None]})).decode()
    "a,b\n'=1+1,-0.1\n-1.5,\n"
    """
    columns = [[name, *table.iloc[:, i].tolist()] for i, name in enumerate(table.columns)]
    lines = [",".join(_quoted(_cell(value)) for value in row) for row in zip(*columns, strict=True)]
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _quoted(cell: str) -> str:
    """Quote where RFC 4180 asks for it: the same bytes from every version of Python."""
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\r\n') else cell


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return ""
    if not isinstance(value, str):
        return repr(value) if isinstance(value, float) else str(value)
    if value.lstrip(" ").startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def attributions_table(
    attributions: Attributions, *, subject: Subject, seed: int, rows: int = ATTRIBUTION_ROWS
) -> pd.DataFrame:
    """Return attributions as a table of at most ``rows`` explained rows, without any raw feature value.

    Parameters
    ----------
    attributions : Attributions of n rows
    subject : Subject
        For the row ids and the predictions.
    seed : int
        Seed of the choice. It depends on what the rows are, not on where they stand: the same rows in
        another order give the same choice.

    Returns
    -------
    DataFrame
        ``row_id, output, prediction, base_value``, one ``shap:<feature>`` column per feature and, where the
        method is estimated, one ``standard_error:<feature>`` column per feature; one line per row and
        output, outputs grouped.
    """
    chosen = _choose(attributions, subject=subject, seed=seed, rows=rows)
    positions = attributions.rows[chosen]
    ids = np.asarray(subject.row_ids[positions]).astype(str)
    blocks = []
    for k, output in enumerate(attributions.output_names):
        columns: dict[str, Any] = {
            "row_id": ids.astype(object),
            "output": np.full(len(chosen), output, dtype=object),
            "prediction": subject.response.output[positions, k],
            "base_value": attributions.base_values[chosen, k],
        }
        for j, name in enumerate(attributions.feature_names):
            columns[f"{VALUE_PREFIX}{name}"] = attributions.values[chosen, j, k]
        if attributions.standard_error is not None:
            for j, name in enumerate(attributions.feature_names):
                columns[f"{ERROR_PREFIX}{name}"] = attributions.standard_error[chosen, j, k]
        blocks.append(pd.DataFrame(columns))
    return plain_table(pd.concat(blocks, ignore_index=True))


def _choose(attributions: Attributions, *, subject: Subject, seed: int, rows: int) -> IntArray:
    n = len(attributions.rows)
    if n <= rows:
        return np.arange(n)
    predictions = subject.response.output[attributions.rows]
    flat = np.concatenate([attributions.values.reshape(n, -1), predictions], axis=1)
    with np.errstate(invalid="ignore"):
        # six digits after scaling: rounding noise must not change the choice
        scaled = np.round(flat / max(float(np.nanmax(np.abs(flat))), 1e-300), 6) + 0.0
    keys = [sha256(f"{seed}".encode() + row.astype("<f8").tobytes()).digest() for row in scaled]
    order = sorted(range(n), key=lambda i: (keys[i], i))[:rows]
    return np.array(sorted(order), dtype=np.int64)


def digests_of(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Return the `table_digest` of each table."""
    return {name: table_digest(table) for name, table in sorted(tables.items())}
