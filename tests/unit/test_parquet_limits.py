"""A few kilobytes of Parquet can stand for billions of values: they are not unfolded."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explain_step.errors import InvalidInput
from explain_step.snapshot.tables import read_parquet


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def folded(text: str, *, rows: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))


def test_too_many_rows_are_refused() -> None:
    data = parquet(a=pa.nulls(1_000_001), b=pa.nulls(1_000_001))
    assert len(data) < 100_000
    with pytest.raises(InvalidInput, match="at most 2,000,000 cells"):
        read_parquet(data, most_cells=2_000_000)
    assert len(read_parquet(data, most_cells=2_000_002)) == 1_000_001


def test_long_text_that_is_stored_once_is_refused() -> None:
    data = parquet(a=folded("x" * 10_000, rows=200_000))
    assert len(data) < 100_000
    with pytest.raises(InvalidInput, match="Text of a table"):
        read_parquet(data)


def test_text_is_text_however_it_is_stored() -> None:
    plain = read_parquet(parquet(a=pa.array(["x", None, "y", "x"])))
    assert read_parquet(parquet(a=pa.array(["x", None, "y", "x"]).dictionary_encode())).equals(plain)
    assert list(plain["a"].isna()) == [False, True, False, False]
    assert read_parquet(parquet(a=folded("x", rows=3)))["a"].dtype == plain["a"].dtype


@pytest.mark.parametrize("column", [pa.array([[1], [2]]), pa.array([{"x": 1}, {"x": 2}])])
def test_columns_that_are_not_plain_are_refused(column: Any) -> None:
    with pytest.raises(InvalidInput, match="plain columns"):
        read_parquet(parquet(a=column))
