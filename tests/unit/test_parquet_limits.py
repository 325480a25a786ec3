"""A few kilobytes of Parquet can stand for billions of values: they are not unfolded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snapshot_kit import copied

from explain_step.errors import InvalidInput, SnapshotError
from explain_step.snapshot import read, tables
from explain_step.snapshot.read import read_directory
from explain_step.snapshot.tables import read_parquet, size_of


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


def test_text_that_is_stored_long_is_refused_before_it_is_read() -> None:
    data = parquet(a=pa.array(["x" * 3_000_000]), b=pa.array(["y" * 3_000_000]))
    assert len(data) < 10_000
    with pytest.raises(InvalidInput, match=r"at most 5,000,000 cells; .* or 6,\d{3},\d{3} of its bytes"):
        read_parquet(data, most_cells=5_000_000)
    assert len(read_parquet(data, most_cells=7_000_000)) == 1
    assert 6_000_000 < size_of(data) < 7_000_000


def test_long_text_of_several_columns_counts_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_TEXT_BYTES", 3_000)
    assert len(read_parquet(parquet(a=folded("x" * 10, rows=200)))) == 200
    with pytest.raises(InvalidInput, match="Text of a table"):
        read_parquet(parquet(a=folded("x" * 10, rows=200), b=folded("y" * 10, rows=200)))


def test_values_of_a_fixed_length_are_refused() -> None:
    kind = pa.binary(10_000)
    data = parquet(a=pa.array([b"x" * 10_000] * 500, kind))
    assert len(data) < 10_000
    with pytest.raises(InvalidInput, match="plain columns"):
        read_parquet(data)


def test_many_small_tables_are_read_up_to_what_a_machine_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied(tmp_path / "snapshot")
    every = sum(size_of(place.read_bytes()) for place in (root / "tables").glob("*.parquet"))
    monkeypatch.setattr(read, "READ_CELLS", every)
    assert read_directory(root).tables
    monkeypatch.setattr(read, "READ_CELLS", every - 1)
    with pytest.raises(SnapshotError, match="at most"):
        read_directory(root)
