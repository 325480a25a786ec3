"""Any table to a pandas DataFrame with the dtypes pandas itself would use: same rows, same results."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from explain_step.errors import InvalidInput
from explain_step.model_inputs import check_frame

SPARK_ROWS = 100_000
"""At most this many rows of a Spark DataFrame are fetched, a random sample; that it was cut is said in the report."""
DENSE_CELLS = 50_000_000
PART_CELLS = 8_000_000
"""Cells of a Parquet file of many rows that Arrow and pandas hold beside each other."""
MANY_ROWS = 100_000
"""Above so many rows nothing is copied as a whole: columns share the memory of the caller's."""
TARGET = "explain_step.target"
ROWS_CUT = "explain_step.rows_cut"
KINDS = (
    "a pandas, polars or Spark DataFrame, an Arrow table, a .parquet or .csv path, an MLflow dataset, a "
    "dict of arrays or "
    "a two-dimensional array"
)


def to_frame(source: Any, *, argument: str = "X") -> pd.DataFrame:
    """Return any table as a pandas DataFrame; pandas frames are returned as they are.

    Parameters
    ----------
    source : frame-like
        pandas, polars (also lazy), Spark (a sample of at most 100,000 rows) or other frames with the Arrow interface;
        Arrow table or record batch; path of a Parquet, Feather or CSV file; MLflow dataset (its target is
        remembered in ``attrs`` for `explain_step.data.split_target`); dict of arrays; list of dicts; NumPy
        array (columns ``x0``, ``x1``, …) or sparse matrix.
    argument : str
        Name for error messages.

    Raises
    ------
    InvalidInput
        Not a table, no such file, no rows, no columns, or two columns with the same name.

    Examples
    --------
    >>> to_frame(np.zeros((2, 3))).columns.tolist()
    ['x0', 'x1', 'x2']
    """
    frame = _converted(source, argument=argument)
    check_frame(frame, argument=argument)
    return frame


def _converted(source: Any, *, argument: str) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, pd.Series):
        return source.to_frame()
    if isinstance(source, str | Path):
        if source == "":
            msg = f"Argument {argument} must be {KINDS}, got an empty path."
            raise InvalidInput(msg)
        return _read(Path(source), argument=argument)
    if isinstance(source, np.ndarray):
        return _from_array(source, argument=argument)
    if isinstance(source, Mapping) or _is_records(source):
        return _from_columns(source, argument=argument)
    if hasattr(source, "toarray") and hasattr(source, "nnz"):
        return _from_sparse(source, argument=argument)
    library = type(source).__module__.partition(".")[0]
    if library == "polars":
        return _from_polars(source)
    if library == "pyarrow":
        return _from_arrow(source, argument=argument)
    if library == "pyspark":
        return _from_spark(source)
    if library == "mlflow" or hasattr(source, "targets"):
        return _from_dataset(source, argument=argument)
    if hasattr(source, "__arrow_c_stream__"):
        import pyarrow

        return _from_arrow(pyarrow.table(source), argument=argument)
    remedy = "; give numpy.asarray(rows)" if isinstance(source, list | tuple) else ""
    msg = f"Argument {argument} must be {KINDS}, got {type(source).__name__}{remedy}."
    raise InvalidInput(msg)


def _is_records(source: Any) -> bool:
    return isinstance(source, list) and bool(source) and all(isinstance(row, Mapping) for row in source)


def _read(path: Path, *, argument: str) -> pd.DataFrame:
    if not path.exists():
        msg = f"Argument {argument} must be a table or the path of one; there is no file {str(path)!r}."
        raise InvalidInput(msg)
    try:
        found = _by_ending(path)
    except (OSError, ValueError) as error:  # what pandas and pyarrow raise on broken files
        msg = f"Argument {argument} must be a readable table; {str(path)!r} is not: {error}"
        raise InvalidInput(msg) from error
    if found is not None:
        return found
    msg = (
        f"Argument {argument} must be a .parquet, .feather or .csv file, got {path.name!r}; convert it first."
    )
    raise InvalidInput(msg)


def _from_columns(source: Any, *, argument: str) -> pd.DataFrame:
    try:
        return pd.DataFrame(source)
    except ValueError as error:
        msg = f"Argument {argument} must have columns of one length: {error}"
        raise InvalidInput(msg) from error


def _by_ending(path: Path) -> pd.DataFrame | None:
    name = path.name.lower()
    if path.is_dir():
        return pd.read_parquet(path)
    if name.endswith((".parquet", ".pq")):
        return _from_parquet(path)
    if name.endswith((".csv", ".csv.gz")):
        return _from_csv(path)
    return pd.read_feather(path) if name.endswith((".feather", ".arrow")) else None


def _from_csv(path: Path) -> pd.DataFrame:
    """Return what `pandas.read_csv` does, where it does not have to guess which column is which.

    By itself it renames a name that is there twice, and where rows have more cells than there are names it takes the
    first column for the index, and moves every name by one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(path, index_col=False)
        except pd.errors.ParserWarning as error:
            msg = "rows have more cells than columns are named; name each of them"
            raise ValueError(msg) from error
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        msg = f"the column {twice[0]!r} is there twice"
        raise ValueError(msg)
    return frame


def _from_parquet(path: Path) -> pd.DataFrame:
    """Return what `pandas.read_parquet` does; of many rows some columns at a time, else all are held twice."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        rows, schema = file.metadata.num_rows, file.schema_arrow
    kept = (schema.pandas_metadata or {}).get("index_columns", [])
    names = [name for name in schema.names if name not in kept]
    at_once = max(1, PART_CELLS // max(1, rows))
    if rows <= MANY_ROWS or len(names) <= at_once or len(set(names)) < len(names):
        return pd.read_parquet(path)
    columns: dict[Any, Any] = {}
    for start in range(0, len(names), at_once):
        part = pd.read_parquet(path, columns=names[start : start + at_once])
        columns.update({name: part[name].array for name in part})
    frame = pd.DataFrame(columns, index=part.index, copy=False)
    frame.attrs.update(part.attrs)
    return frame


def _from_array(array: Any, *, argument: str) -> pd.DataFrame:
    if array.dtype.names:
        return pd.DataFrame({name: array[name] for name in array.dtype.names})
    if array.ndim != 2:
        msg = (
            f"Argument {argument} must have two dimensions (rows, columns), got shape {array.shape}; reshape "
            "one row with "
            ".reshape(1, -1), one column with .reshape(-1, 1)."
        )
        raise InvalidInput(msg)
    names = [f"x{k}" for k in range(array.shape[1])]
    if array.dtype != object:
        return pd.DataFrame(array, columns=names, copy=len(array) <= MANY_ROWS)
    # text stays objects, as the model has seen it: pandas would read it as its string type, and None in it as NaN
    frame = pd.DataFrame(array, columns=names, dtype=object)
    columns = {n: c if _is_text(found := c.infer_objects()) else found for n, c in frame.items()}
    return pd.DataFrame(columns, index=frame.index)


def _is_text(column: pd.Series[Any]) -> bool:
    return isinstance(column.dtype, pd.StringDtype)


def _from_sparse(matrix: Any, *, argument: str) -> pd.DataFrame:
    if matrix.shape[0] * matrix.shape[1] > DENSE_CELLS:
        msg = (
            f"Argument {argument} must have at most {DENSE_CELLS:,} cells as a sparse matrix, got shape "
            f"{matrix.shape}; explain the "
            "Pipeline with its vectoriser on the raw text column, or select fewer rows."
        )
        raise InvalidInput(msg)
    return _from_array(matrix.toarray(), argument=argument)


def _from_polars(source: Any) -> pd.DataFrame:
    """Convert polars; unordered categories are sorted, as pandas sorts them."""
    frame = source.collect() if hasattr(source, "collect") else source
    frame = frame.to_frame() if type(frame).__name__ == "Series" else frame
    plain: pd.DataFrame = frame.to_pandas()
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if str(dtype).startswith("Categorical"):
            levels = sorted(plain[name].dropna().unique())
            plain[name] = pd.Categorical(plain[name], categories=levels)
    return plain


def _from_arrow(source: Any, *, argument: str) -> pd.DataFrame:
    if not hasattr(source, "to_pandas") or not hasattr(source, "schema"):
        msg = f"Argument {argument} must be {KINDS}, got {type(source).__name__}; give a pyarrow.Table."
        raise InvalidInput(msg)
    frame: pd.DataFrame = source.to_pandas(date_as_object=False)
    return frame


def _from_spark(source: Any) -> pd.DataFrame:
    """Return all rows of a small Spark DataFrame, else a random sample that does not depend on its partitions."""
    from explain_step import spark_sampling

    taken = spark_sampling.sample(source, rows=SPARK_ROWS)
    if not taken.whole:
        taken.frame.attrs[ROWS_CUT] = len(taken.frame)
    return taken.frame


def _from_dataset(source: Any, *, argument: str) -> pd.DataFrame:
    """Convert an MLflow dataset; the frame remembers the column of the declared targets."""
    table = getattr(source, "df", None)
    if table is None:
        table = getattr(source, "features", None)
    if table is None or table is source:
        msg = f"Argument {argument} must be {KINDS}, got {type(source).__name__} without df or features."
        raise InvalidInput(msg)
    frame = _converted(table, argument=argument)
    targets = getattr(source, "targets", None)
    if targets is None:
        return frame
    frame = frame.copy()
    name = targets if isinstance(targets, str) else "target"
    if not isinstance(targets, str):
        values = next(iter(targets.values())) if isinstance(targets, Mapping) else targets
        while name in frame.columns:
            name += "_"
        frame[name] = np.asarray(values)
    frame.attrs[TARGET] = name
    return frame
