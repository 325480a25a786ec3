"""The digest of rows that adds up, and what a scan and a sample of partitions are made of; no Spark is started."""

from __future__ import annotations

import datetime
from decimal import Decimal
from functools import reduce

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain_step import spark_frames, spark_sampling
from explain_step.errors import InvalidInput, MissingDependency
from explain_step.row_sums import RowSum, row_hashes, row_keys, row_sum, rowsum_digest, summed
from explain_step.spark_sampling import HEAVY, SKETCH, Scan, drawn

FRAME = pd.DataFrame(
    {
        "number": [1.5, np.nan, -0.0, np.inf, 2.0**60],
        "count": [3, 1, 2, 2**62 + 1, 0],
        "flag": [True, False, True, True, False],
        "text": ["a", None, "", "ü", "a"],
        "when": pd.to_datetime(
            ["2020-01-01", None, "1969-12-31 23:59:59.5", "2020-01-01", "2021-06-01"], format="ISO8601"
        ),
    }
)


def test_any_order_and_any_parts_give_one_digest() -> None:
    whole = row_sum(FRAME)
    parts = [FRAME.iloc[[4]], FRAME.iloc[[0, 3]], FRAME.iloc[[2, 1]]]
    assert reduce(RowSum.__add__, map(row_sum, parts)) == whole
    assert rowsum_digest(FRAME.sample(frac=1, random_state=0)) == rowsum_digest(FRAME)
    assert RowSum.from_bytes(whole.to_bytes()) == whole


@pytest.mark.parametrize(
    "other",
    [
        FRAME.iloc[:4],
        FRAME.iloc[[0, 1, 2, 3, 3]],
        FRAME.rename(columns={"text": "texts"}),
        FRAME.assign(text=["a", None, "", "u", "a"]),
        FRAME.assign(text=["a", "", "", "ü", "a"]),
        FRAME.assign(count=[3, 1, 2, 2**62, 0]),
        FRAME.assign(flag=[True, False, True, True, True]),
        FRAME.assign(when=FRAME["when"] + pd.Timedelta(1, "us")),
        FRAME.assign(when=FRAME["when"].dt.tz_localize("UTC")),
        FRAME.assign(number=FRAME["number"].astype(str)),
        FRAME[["count", "number", "flag", "text", "when"]],
    ],
)
def test_other_content_has_another_digest(other: pd.DataFrame) -> None:
    assert rowsum_digest(other) != rowsum_digest(FRAME)


@pytest.mark.parametrize(
    "same",
    [
        FRAME.astype({"text": "category"}),
        FRAME.astype({"text": object, "flag": object, "count": object}),
        FRAME.astype({"text": "string[pyarrow]", "count": "Int64", "flag": "boolean", "number": "Float64"}),
        FRAME.astype({"when": "datetime64[ns]"}),
        FRAME.assign(number=[1.5, None, 0.0, np.inf, 2.0**60]),
        FRAME.set_index(pd.Index(list("vwxyz"))),
    ],
)
def test_how_values_are_stored_does_not_count(same: pd.DataFrame) -> None:
    assert rowsum_digest(same) == rowsum_digest(FRAME)


def test_cells_of_two_columns_do_not_run_into_each_other() -> None:
    a = pd.DataFrame({"x": ["ab", "c"], "y": ["", "d"]})
    assert rowsum_digest(a) != rowsum_digest(pd.DataFrame({"x": ["a", "c"], "y": ["b", "d"]}))
    # the same values in each column, paired otherwise
    assert rowsum_digest(a) != rowsum_digest(pd.DataFrame({"x": ["ab", "c"], "y": ["d", ""]}))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 5), st.randoms())
def test_scans_of_any_partition_are_the_scan_of_all(values, parts, random) -> None:
    frame = pd.DataFrame({"x": np.array(values, dtype=np.float64)})
    whole = spark_sampling._scan(pa.Table.from_pandas(frame), seed=1)
    places = [random.randrange(parts) for _ in values]
    some = [frame.iloc[[i for i, p in enumerate(places) if p == k]] for k in sorted(set(places))]
    scans = [spark_sampling._scan(pa.Table.from_pandas(part, preserve_index=False), seed=1) for part in some]
    merged = reduce(Scan.__add__, [Scan.from_bytes(scan.to_bytes()) for scan in scans])
    assert merged.rows == whole.rows
    assert merged.smallest.tolist() == whole.smallest.tolist()
    assert dict(zip(merged.heavy, merged.counts, strict=True)) == dict(
        zip(whole.heavy, whole.counts, strict=True)
    )
    assert merged.different() == len(set(values))


def test_a_frequent_row_is_never_lost_among_many_rare_ones() -> None:
    rng = np.random.default_rng(0)
    rare = rng.integers(2**63, size=20_000).astype(np.uint64)
    often = np.full(300, 7, dtype=np.uint64)  # one in 68 rows
    parts = np.array_split(rng.permutation(np.concatenate([rare, often])), 40)
    found = (np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))
    for part in parts:
        keys, counts = np.unique(part, return_counts=True)
        found = spark_sampling._frequent(
            np.concatenate([found[0], keys]), np.concatenate([found[1], counts.astype(np.int64)])
        )
    assert 7 in found[0]
    assert len(found[0]) <= HEAVY


def test_the_number_of_different_rows_is_estimated() -> None:
    frame = pd.DataFrame({"x": np.repeat(np.arange(20_000.0), 2)})
    scan = spark_sampling._scan(pa.Table.from_pandas(frame), seed=0)
    assert len(scan.smallest) == SKETCH
    assert scan.different() == pytest.approx(20_000, rel=0.15)  # three standard errors


def test_a_sample_is_random_and_the_seed_chooses_it() -> None:
    values = np.arange(40_000.0)
    hashes = row_hashes(pd.DataFrame({"x": values}))
    assert summed(hashes).rows == 40_000
    first, second = (values[np.argsort(row_keys(hashes, seed=s))[:4_000]] for s in (0, 1))
    assert abs(first.mean() - values.mean()) < 3 * values.std() / np.sqrt(4_000)
    assert 300 < len(np.intersect1d(first, second)) < 500  # a tenth of a tenth


def test_contents_are_drawn_with_the_number_of_their_rows() -> None:
    keys = np.arange(1_001, dtype=np.uint64)
    counts = np.ones(1_001, dtype=np.int64)
    counts[1_000] = 9_000  # most rows are alike, and theirs is the largest key
    places = drawn(keys, counts, total=19_000, rows=500)
    assert np.count_nonzero(places == 1_000) == round(500 * 9_000 / 19_000)
    assert len(places) == 500
    assert places[places < 1_000].tolist() == list(range(263))


def test_few_contents_are_all_drawn_by_their_share() -> None:
    places = drawn(np.arange(3, dtype=np.uint64), np.array([600, 300, 100]), total=1_000, rows=10)
    assert np.bincount(places).tolist() == [6, 3, 1]


def test_a_block_has_the_dtypes_of_the_whole() -> None:
    table = pa.table(
        {
            "count": pa.array([1, 2], type=pa.int32()),
            "flag": [True, False],
            "price": pa.array(["1.25", "2.50"]).cast(pa.decimal128(6, 2)),
            "day": pa.array([datetime.date(2020, 1, 2)] * 2),
            "at": pa.array(
                [datetime.datetime(2020, 1, 2, 3)] * 2, type=pa.timestamp("us", tz="Europe/Berlin")
            ),
        }
    )
    plain = spark_frames.frame_of(table)
    assert plain.dtypes.astype(str).to_dict() | {"day": "", "at": ""} == {
        "count": "int32", "flag": "bool", "price": "float64", "day": "", "at": "",
    }  # fmt: skip
    assert plain["at"].iloc[0] == pd.Timestamp("2020-01-02 04:00")  # the wall clock of the session's zone
    assert plain["day"].iloc[0] == pd.Timestamp("2020-01-02")
    holed = spark_frames.frame_of(table, missing=frozenset({"count", "flag"}))
    assert holed.dtypes[["count", "flag"]].astype(str).tolist() == ["float64", "object"]


def test_decimals_are_the_nearest_numbers() -> None:
    values = [Decimal(k) / 100 for k in range(-3_000, 3_000, 7)]
    table = pa.table({"price": pa.array([*values, None], type=pa.decimal128(10, 2))})
    found = spark_frames.frame_of(table)["price"]
    assert found.tolist()[:-1] == [float(value) for value in values]
    assert np.isnan(found.iloc[-1])


def test_an_error_of_the_rows_is_a_reply_and_not_a_failed_task() -> None:
    def refuse(batches):
        next(batches)
        msg = "Argument y must not have missing values, got 1."
        raise InvalidInput(msg)

    batches = pa.table({"x": range(10)}).to_batches(max_chunksize=3)
    (reply,) = spark_frames.answering(refuse)(iter(batches))
    assert reply.to_pylist() == [
        {"part": None, "problem": '["InvalidInput", "Argument y must not have missing values, got 1."]'}
    ]


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        (
            "Job aborted: Total size of serialized results of 192 tasks (1024.7 KiB) is bigger than "
            "spark.driver.maxResultSize (1024.0 KiB)",
            InvalidInput,
            r"fit into spark.driver.maxResultSize \(1024.0 KiB\), got 1024.7 KiB; give fewer partitions",
        ),
        ("x ModuleNotFoundError: No module named 'xgboost'", MissingDependency, "no module 'xgboost'"),
        ("something else", RuntimeError, "something else"),
    ],
)
def test_errors_of_spark_say_what_to_do(said: str, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told), spark_frames.fetching():
        raise RuntimeError(said)


def test_blocks_are_bounded_by_rows_and_cells() -> None:
    batches = pa.table({"x": range(200_000)}).to_batches(max_chunksize=30_000)
    sizes = [block.num_rows for block in spark_frames.blocks(iter(batches), columns=["x"])]
    assert sum(sizes) == 200_000
    assert sizes[:-1] == [spark_frames.BLOCK_ROWS] * 3
    names = [f"x{k}" for k in range(1 << 12)]
    rows = pa.table(dict.fromkeys(names, range(3_000))).to_batches(max_chunksize=2_000)
    wide = [block.num_rows for block in spark_frames.blocks(iter(rows), columns=names)]
    assert max(wide) <= 1 << 10
    assert sum(wide) == 3_000
