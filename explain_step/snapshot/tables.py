"""Tables as files: plain columns, Parquet bytes, CSV bytes, and the bounded table of attributions."""

from __future__ import annotations

import io
import re
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd

from explain_step.digests import table_digest
from explain_step.types import Attributions, IntArray, Subject

CSV_ROWS = 2_000
"""Tables up to this length get a CSV twin."""
ATTRIBUTION_ROWS = 2_000
"""Rows of the attributions that go into a snapshot: it is downloaded with every load of the model."""
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


def read_parquet(data: bytes) -> pd.DataFrame:
    """Return the table in Parquet bytes."""
    import pyarrow.parquet as pq

    frame: pd.DataFrame = pq.read_table(io.BytesIO(data)).to_pandas()
    return frame


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
