"""Canonical bytes and digests: what counts, what does not."""

from __future__ import annotations

import datetime
import hashlib
import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain_step import digests
from explain_step.canonical import canonical_json, plain_json
from explain_step.digests import (
    directory_digest,
    frame_digest,
    frame_digests,
    rounded,
    sha256_bytes,
    sha256_file,
    table_digest,
)
from explain_step.errors import InvalidInput

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT | st.floats(allow_nan=False)
JSON = st.recursive(
    SCALARS.filter(lambda v: not (isinstance(v, float) and math.isinf(v))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        # the sample numbers of RFC 8785, appendix B
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (-5e-324, "-5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e23, "1e+23"),
        (1.0000000000000001e23, "1.0000000000000001e+23"),
        (999999999999999700000.0, "999999999999999700000"),
        (1e21, "1e+21"),
        (9.999999999999997e-7, "9.999999999999997e-7"),
        (0.000001, "0.000001"),
        (333333333.33333325, "333333333.33333325"),
        (0.000012345, "0.000012345"),
        (123.456, "123.456"),
        (100.0, "100"),
        (-1.5, "-1.5"),
    ],
)
def test_numbers_are_written_as_ecmascript_writes_them(number: float, text: str) -> None:
    assert canonical_json(number).decode() == text


def test_keys_are_sorted_by_utf16_code_units() -> None:
    # the example of RFC 8785, section 3.2.3: an emoji sorts before U+FB33 although its code point is larger
    keys = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\u00f6": 7}
    assert list(json.loads(canonical_json(keys)).values()) == [2, 4, 6, 7, 1, 5, 3]


def test_strings_are_escaped_minimally() -> None:
    assert canonical_json('\u20ac$\x0f\nA\'B"\\\\"/').decode() == '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_canonical_json_reads_back_and_is_stable(value: object) -> None:
    data = canonical_json(value)
    back = json.loads(data, parse_int=lambda text: int(text) if len(text) < 16 else float(text))
    assert canonical_json(back) == data
    assert back == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "finite"),
        ({"a": [float("inf")]}, r"\$\.a\[0\]"),
        (np.float64(1), "numpy.float64"),
        ({"a": np.int64(1)}, "numpy.int64"),
        ({1: 2}, "Keys at"),
        (2**53 + 1, "exact as a 64-bit float"),
        (10**400, "exact as a 64-bit float"),
        ({"x": {1, 2}}, "builtins.set"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_its_place(value: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        canonical_json(value)


def test_plain_json_converts_on_purpose() -> None:
    given_ = {
        "n": np.int32(3),
        "x": np.float32(0.5),
        "nan": np.nan,
        "inf": -np.inf,
        "a": np.array([[1.0, np.nan]]),
        "s": {"b", "a"},
        "t": pd.NA,
        "big": 2**60,
        "flag": np.bool_(True),
        "lone": "\ud800",
    }
    assert plain_json(given_) == {
        "n": 3,
        "x": 0.5,
        "nan": None,
        "inf": None,
        "a": [[1.0, None]],
        "s": ["a", "b"],
        "t": None,
        "big": str(2**60),
        "flag": True,
        "lone": "\\ud800",
    }
    assert canonical_json(plain_json(given_))


def test_file_digests_are_sha256(tmp_path) -> None:
    data = b"x" * 3_000_001
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()


# --- directories


def test_directory_digest_sees_content_names_and_places_but_not_explanations(tmp_path) -> None:
    def make(name: str, files: dict[str, bytes]) -> str:
        for path, data in files.items():
            place = tmp_path / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        return directory_digest(tmp_path / name)

    base = make("a", {"MLmodel": b"m", "data/model.ubj": b"1"})
    assert make("b", {"data/model.ubj": b"1", "MLmodel": b"m"}) == base
    assert make("c", {"MLmodel": b"m", "data/model.ubj": b"1", "explanations/x/manifest.json": b"{}"}) == base
    assert make("d", {"MLmodel": b"m", "data/model.ubj": b"1", "registered_model_meta": b"v: 1"}) == base
    others = [
        make("e", {"MLmodel": b"m", "data/model.ubj": b"2"}),
        make("f", {"MLmodel": b"m", "data/model2.ubj": b"1"}),
        make("g", {"MLmodel": b"m", "model.ubj": b"1"}),
        make("h", {"MLmodel": b"m", "data/model.ubj": b"1", "data/explanations/x": b""}),
    ]
    assert len({base, *others}) == 5


def test_directory_digest_refuses_links_and_empty_directories(tmp_path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(InvalidInput, match="no file"):
        directory_digest(tmp_path / "m")
    (tmp_path / "m" / "MLmodel").write_text("x")
    (tmp_path / "m" / "data").symlink_to(tmp_path)
    with pytest.raises(InvalidInput, match="data' is a link"):
        directory_digest(tmp_path / "m")
    with pytest.raises(InvalidInput, match="must be a directory"):
        directory_digest(tmp_path / "none")


# --- frames


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "i": pd.Series([1, 2, 3], dtype="int64"),
            "f": [0.1, np.nan, -0.0],
            "b": [True, False, True],
            "s": ["a", None, "\u00e9\u4e2d\U0001f600"],
            "t": pd.to_datetime(["2020-01-01", None, "1969-12-31 23:59:59.123456"], format="ISO8601"),
            "c": pd.Categorical(["x", "y", None]),
        }
    )


EQUAL = {
    "copy": lambda f: f.copy(),
    "object strings": lambda f: f.assign(s=f["s"].astype(object)),
    "python strings": lambda f: f.assign(s=f["s"].astype("string[python]")),
    "arrow strings": lambda f: f.assign(s=f["s"].astype("string[pyarrow]")),
    "arrow dtype strings": lambda f: f.assign(s=f["s"].astype(pd.ArrowDtype(pa.string()))),
    "NaN for None": lambda f: f.assign(s=f["s"].astype(object).where(f["s"].notna(), np.nan)),
    "nullable integer": lambda f: f.assign(i=f["i"].astype("Int64")),
    "arrow integer": lambda f: f.assign(i=f["i"].astype(pd.ArrowDtype(pa.int64()))),
    "nullable float": lambda f: f.assign(f=f["f"].astype("Float64")),
    "arrow float": lambda f: f.assign(f=f["f"].astype(pd.ArrowDtype(pa.float64()))),
    "nullable bool": lambda f: f.assign(b=f["b"].astype("boolean")),
    "object bool": lambda f: f.assign(b=f["b"].astype(object)),
    "arrow bool": lambda f: f.assign(b=f["b"].astype(pd.ArrowDtype(pa.bool_()))),
    "nanoseconds": lambda f: f.assign(t=f["t"].astype("datetime64[ns]")),
    "microseconds": lambda f: f.assign(t=f["t"].astype("datetime64[us]")),
    "arrow timestamps": lambda f: f.assign(t=f["t"].astype(pd.ArrowDtype(pa.timestamp("us")))),
    "plus zero": lambda f: f.assign(f=f["f"].abs()),
    "another index": lambda f: f.set_axis(["p", "q", "r"], axis=0),
    "more levels": lambda f: f.assign(c=f["c"].cat.add_categories(["z"])),
    "levels in another order": lambda f: f.assign(c=f["c"].cat.reorder_categories(["y", "x"])),
    "chunked": lambda f: pd.concat([f.iloc[:1], f.iloc[1:]], ignore_index=True).assign(c=f["c"]),
    "through parquet": lambda f: pa.Table.from_pandas(f).to_pandas(),
    "strided": lambda f: pd.concat([f, f]).iloc[: len(f)],
}

DIFFERENT = {
    "one number": lambda f: f.assign(f=[0.1, np.nan, 1e-300]),
    "last bit": lambda f: f.assign(f=[np.nextafter(0.1, 1), np.nan, 0.0]),
    "missing number": lambda f: f.assign(f=[0.1, 0.0, 0.0]),
    "one integer": lambda f: f.assign(i=[1, 2, 4]),
    "int32": lambda f: f.assign(i=f["i"].astype("int32")),
    "uint64": lambda f: f.assign(i=f["i"].astype("uint64")),
    "integer as float": lambda f: f.assign(i=f["i"].astype("float64")),
    "integer as text": lambda f: f.assign(i=f["i"].astype(str)),
    "float32": lambda f: f.assign(f=f["f"].astype("float32")),
    "one bool": lambda f: f.assign(b=[True, False, False]),
    "bool as integer": lambda f: f.assign(b=f["b"].astype("int64")),
    "one text": lambda f: f.assign(s=["a", None, "b"]),
    "empty for missing": lambda f: f.assign(s=["a", "", f["s"].iloc[2]]),
    "text 'None'": lambda f: f.assign(s=["a", "None", f["s"].iloc[2]]),
    "time": lambda f: f.assign(t=f["t"] + pd.Timedelta("1us")),
    "time zone": lambda f: f.assign(t=f["t"].dt.tz_localize("UTC")),
    "category as text": lambda f: f.assign(c=f["c"].astype(object)),
    "ordered": lambda f: f.assign(c=f["c"].cat.as_ordered()),
    "category": lambda f: f.assign(c=pd.Categorical(["x", "x", None])),
    "rows swapped": lambda f: f.iloc[[1, 0, 2]],
    "row dropped": lambda f: f.iloc[:2],
    "row repeated": lambda f: f.iloc[[0, 1, 2, 2]],
    "column renamed": lambda f: f.rename(columns={"f": "F"}),
    "columns moved": lambda f: f[["f", "i", "b", "s", "t", "c"]],
    "column dropped": lambda f: f.drop(columns="b"),
    "values between columns": lambda f: f.rename(columns={"i": "f", "f": "i"}),
}


@pytest.mark.parametrize("change", EQUAL)
def test_the_same_content_in_other_storage_has_the_same_digest(change: str) -> None:
    assert frame_digest(EQUAL[change](_frame())) == frame_digest(_frame())


@pytest.mark.parametrize("change", DIFFERENT)
def test_other_content_has_another_digest(change: str) -> None:
    assert frame_digest(DIFFERENT[change](_frame())) != frame_digest(_frame())


def test_all_changes_have_digests_of_their_own() -> None:
    digests = [frame_digest(change(_frame())) for change in DIFFERENT.values()]
    assert len(set(digests)) == len(digests)


def test_neighbouring_texts_cannot_imitate_each_other() -> None:
    pairs = [["ab", "c"], ["a", "bc"], ["abc", ""], ["", "abc"]]
    assert len({frame_digest(pd.DataFrame({"s": pair})) for pair in pairs}) == 4


def test_strings_with_the_same_text_but_another_type_differ() -> None:
    mixed = [[1, "a"], ["1", "a"], [1.0, "a"], [True, "a"], [b"1", "a"]]
    assert len({frame_digest(pd.DataFrame({"s": pd.Series(v, dtype=object)})) for v in mixed}) == 5


def test_ordered_levels_count_in_their_order() -> None:
    up = pd.DataFrame({"c": pd.Categorical(["a", "b"], categories=["a", "b"], ordered=True)})
    down = pd.DataFrame({"c": pd.Categorical(["a", "b"], categories=["b", "a"], ordered=True)})
    assert frame_digest(up) != frame_digest(down)


def test_odd_names_and_empty_frames_have_digests() -> None:
    frames = [
        pd.DataFrame(),
        pd.DataFrame({"a": []}),
        pd.DataFrame({"a": pd.Series([], dtype=str)}),
        pd.DataFrame({1: [1]}),
        pd.DataFrame({"1": [1]}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])),
        pd.DataFrame({"a": [[1, 2]]}),
        pd.DataFrame({"a": [pd.Period("2020", "Y")]}),
        pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1])}),
        pd.DataFrame({"a": [pd.Timedelta("1s")]}),
    ]
    assert len({frame_digest(f) for f in frames}) == len(frames)


def test_python_objects_without_a_canonical_form_are_refused_by_column() -> None:
    with pytest.raises(InvalidInput, match=r"Column 'thing' .*builtins\.object objects; convert"):
        frame_digest(pd.DataFrame({"thing": [object()]}))


def test_dates_of_arrow_are_dates() -> None:
    days = [datetime.date(2020, 1, 1), None, datetime.date(1969, 12, 31)]
    stored = pd.DataFrame({"d": pd.Series(days, dtype=pd.ArrowDtype(pa.date32()))})
    assert frame_digest(stored) == frame_digest(pd.DataFrame({"d": pd.Series(days, dtype=object)}))


def test_a_category_is_its_levels_however_it_is_stored() -> None:
    texts = ["b", None, "a", "b"]
    plain = pd.DataFrame({"c": pd.Categorical(texts)})
    arrow = pa.array(texts).dictionary_encode()
    dictionary = pd.DataFrame({"c": pd.Series(arrow.to_pandas())})
    assert frame_digest(dictionary) == frame_digest(plain)
    numbers = pd.DataFrame({"c": pd.Categorical([2, None, 1, 2])})
    assert frame_digest(numbers) != frame_digest(plain)


def test_one_cell_at_any_row_of_any_column_counts() -> None:
    rng = np.random.default_rng(3)
    n = 200_000
    frame = pd.DataFrame(
        {
            "i": rng.integers(9, size=n),
            "f": rng.normal(size=n),
            "s": rng.choice(["a", "b", "c"], size=n),
            "b": rng.random(n) < 0.5,
            "t": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(99, size=n), unit="s"),
            "c": pd.Categorical(rng.choice(["x", "y"], size=n)),
        }
    )
    base = frame_digests(frame, rowset=True)
    other = {"i": 99, "f": 0.5, "s": "z", "t": pd.Timestamp("1999-01-01")}
    for row in (0, n // 2, n - 1):
        for k, name in enumerate(frame.columns):
            changed = frame.copy()
            value = other.get(name, not frame["b"][row] if name == "b" else "xy".replace(frame["c"][row], ""))
            changed.loc[row, name] = value
            found = frame_digests(changed, rowset=True)
            assert found.whole != base.whole
            assert found.rowset != base.rowset
            assert [i for i in range(6) if found.columns[i] != base.columns[i]] == [k]


def test_digests_are_the_same_with_one_and_with_four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({f"c{k}": rng.choice([None, "u", "v", 1], size=500) for k in range(9)})
    frame["t"] = pd.to_datetime(rng.integers(10**9, size=500), unit="s")
    frame["x"] = rng.normal(size=500)
    alone = frame_digests(frame, rowset=True)
    monkeypatch.setattr(digests, "_threads", lambda _: 4)
    assert frame_digests(frame, rowset=True) == alone == frame_digests(frame.copy(), rowset=True)
    assert frame_digests(frame.iloc[::-1], rowset=True).rowset == alone.rowset
    frame["odd"] = [object()] * 500
    with pytest.raises(InvalidInput, match="'odd'"):
        frame_digests(frame)


def test_the_order_free_digest_is_the_published_one() -> None:
    frame = pd.DataFrame({"x": [2.5, None, 2.5], "s": ["b", "a", "b"], "i": [1, 2, 1]})
    published = "83cd471d9482d1552a3ce3bb5665d84561b434e25b094c87eafd4b6cbc2eb807"
    assert frame_digests(frame, rowset=True).rowset == published


def test_frame_digest_leaves_the_frame_as_it_was() -> None:
    frame, before = _frame(), _frame()
    frame_digest(frame)
    table_digest(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_frame_digest_is_the_published_one() -> None:
    # a changed rule needs a new algorithm name, not a new number here
    assert frame_digest(_frame()) == GOLDEN_FRAME
    assert table_digest(_frame()) == GOLDEN_TABLE


GOLDEN_FRAME = "c09b280e55d6ee9996087cac3dabebb5bedd18518cf6c5e3c6bcc02aab0f8b8e"
GOLDEN_TABLE = "7192eb68b2e84c55062d4ea6f1d57584a1fd8dd15bb42ab4aaa36355f847fa02"


# --- tables


def test_table_digest_ignores_rounding_noise() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=2000) * 10.0 ** rng.integers(-3, 4, size=2000)
    values[:5] = [1.0, 0.0, 1e-17, -1.0, 0.1 + 0.2]
    noisy = values * (1 + rng.choice([-1, 1], size=2000) * 2.2e-16) + rng.normal(size=2000) * 1e-16
    assert table_digest(pd.DataFrame({"v": values})) == table_digest(pd.DataFrame({"v": noisy}))


@pytest.mark.parametrize(
    ("a", "b"), [(1.0, np.nextafter(1.0, 0)), (1e5, np.nextafter(1e5, 0)), (1e-5, np.nextafter(1e-5, 0))]
)
def test_table_digest_is_steady_at_powers_of_ten(a: float, b: float) -> None:
    one, other = pd.DataFrame({"v": [a, 0.123, 0.5]}), pd.DataFrame({"v": [b, 0.123, 0.5]})
    assert table_digest(one) == table_digest(other)
    assert rounded([a]) == rounded([b])


def test_table_digest_sees_real_changes() -> None:
    base = pd.DataFrame({"v": [0.123456, 12.0, np.nan], "k": ["a", "b", "c"], "n": [1, 2, 3]})
    others = [
        base.assign(v=[0.123466, 12.0, np.nan]),
        base.assign(v=[0.123456, 12.0, 0.0]),
        base.assign(v=[0.123456, np.inf, np.nan]),
        base.assign(v=[-0.123456, 12.0, np.nan]),
        base.assign(v=[0.123456, 12.0, np.nan]).iloc[::-1],
        base.assign(n=[1, 2, 4]),
        base.assign(k=["a", "b", "d"]),
    ]
    assert len({table_digest(t) for t in [base, *others]}) == len(others) + 1
    assert table_digest(base.assign(n=base["n"].astype("int32"))) == table_digest(base)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_rounded_numbers_are_within_six_digits(values: list[float]) -> None:
    largest = max(map(abs, values))
    for value, text in zip(values, rounded(values), strict=True):
        mantissa, _, exponent = text.partition("e")
        assert abs(int(mantissa)) < 10**6
        assert abs(float(f"{mantissa}e{exponent}") - value) <= max(
            0.51e-5 * abs(value), 0.51e-7 * largest, 0.51e-9
        )
