import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_kit import loan_frame

from explain_step.artifacts.segment_evaluation import evaluate
from explain_step.artifacts.segment_expressions import parse, quote
from explain_step.errors import InvalidInput

FRAME = loan_frame()
COLUMNS = list(FRAME.columns)


def rows(text, frame=FRAME):
    return evaluate(parse(text, list(frame.columns)), frame)


@pytest.mark.parametrize(
    "text",
    [
        "age < 30",
        "age >= 30 and income < 20",
        "purpose == 'car' or age > 60",
        "not (age < 30)",
        "purpose in ['car', 'boat']",
        "purpose not in ('car', 'boat')",
        "18 <= age < 40",
        "age > income",
        "`home owner` == 'yes' and age != 30",
        "employed and age > 50",
        "not employed",
        "age < -1.5 or income > +20",
        "when >= '2021-06-01'",
        '(age < 30 or age > 60) and purpose == "house"',
    ],
)
def test_agrees_with_pandas(text):
    expected = FRAME.eval(text).to_numpy(dtype=bool)
    assert rows(text).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "age.__class__",
        "age.mean() > 3",
        "(lambda: 1)()",
        "[x for x in age]",
        "age[0] > 1",
        "age + 1 > 3",
        "f'{age}' == 'a'",
        "(age := 3) > 2",
        "age if employed else income",
        "@age > 3",
        "age > 3; income",
        "age > 3\nimport os",
        "*age",
        "age > ...",
        "age == b'x'",
        "age > 1j",
        "age == None",
        "1 < 2",
        "True",
        "'car'",
        "age",
        "",
        "   ",
        "age <",
        "(" * 300 + "age > 1" + ")" * 300,
        "not " * 200 + "employed",
        "age > 1 and " * 300 + "age > 1",
        "`age > 3",
        "purpose in 'car'",
        "purpose in []",
        "'a' in purpose",
        "age is 3",
        "(age < 3) & (income > 2)",
        "age > 3\x00",
        "purpose in [age]",
        "{'a': age}",
        "yield age",
        "await age",
    ],
)
def test_refuses_everything_else(text):
    with pytest.raises(InvalidInput, match=r"Segment expression|there is no column"):
        rows(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("agee < 30", r"position 1, there is no column 'agee'; did you mean 'age'"),
        ("age < 30 and purpos == 'car'", r"position 14, there is no column 'purpos'; did you mean 'purpose'"),
        ("`home owners` == 'yes'", r"did you mean 'home owner'"),
        ("home owner", r"did you mean the column 'home owner'|syntax"),
        ("age < '30'", r"position 7, column 'age' holds numbers and is compared with text; write a number"),
        ("purpose == 3", r"column 'purpose' holds text; quote the value: '3'"),
        ("when > 'soon'", r"holds dates and 'soon' is none; write one as text"),
        (
            "`home owner` == 'yes' and age.mean() > 3",
            r"position 27, an attribute|position 27, a function call",
        ),
        ("(age < 3) | (age > 9)", r"write and, or, not"),
        ("age > 3 and income", r"position 13, column 'income' is not true or false"),
    ],
)
def test_errors_name_position_and_remedy(text, wanted):
    with pytest.raises(InvalidInput, match=wanted):
        rows(text)


def test_missing_values():
    frame = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "t": ["x", None, "y"]})
    assert rows("a < 2", frame).tolist() == [True, False, False]
    assert rows("a is None", frame).tolist() == [False, True, False]
    assert rows("t is not None and a != 9", frame).tolist() == [True, False, True]
    assert rows("t != 'x'", frame).tolist() == [False, True, True]


def test_categories_and_time_zones():
    frame = pd.DataFrame(
        {
            "size": pd.Categorical(["s", "m", "l"], categories=["s", "m", "l"], ordered=True),
            "kind": pd.Categorical(["u", "v", "u"]),
            "at": pd.to_datetime(["2020-01-01", "2021-01-01", "2022-01-01"]).tz_localize("Europe/Paris"),
        }
    )
    assert rows("size >= 'm'", frame).tolist() == [False, True, True]
    assert rows("kind == 'u'", frame).tolist() == [True, False, True]
    assert rows("at < '2021-06-01'", frame).tolist() == [True, True, False]
    with pytest.raises(InvalidInput, match="cannot be compared"):
        rows("size >= 'unknown'", frame)


def test_hostile_column_names():
    names = ["a b", "class", "x'y", 'd"q', "été", "n\nm", "lambda", "1st"]
    frame = pd.DataFrame({name: [1.0, 2.0] for name in names})
    for name in names:
        assert rows(f"{quote(name)} < 1.5", frame).tolist() == [True, False]
    assert rows("`a b` < 1.5 and `x'y` > 0 and `a b` != 7", frame).tolist() == [True, False]


NUMBER = st.one_of(st.integers(-5, 90), st.floats(-5, 90, allow_nan=False).map(lambda v: round(v, 3)))
COMPARISON = st.builds(
    lambda column, op, value: f"{column} {op} {value}",
    st.sampled_from(["age", "income"]),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    NUMBER,
)
LEVEL = st.builds(
    lambda op, value: f"purpose {op} {value!r}",
    st.sampled_from(["==", "!="]),
    st.sampled_from(["car", "boat", "x"]),
)
EXPRESSION = st.recursive(
    st.one_of(COMPARISON, LEVEL, st.just("employed")),
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(EXPRESSION)
def test_random_expressions_agree_with_pandas(text):
    assert rows(text).tolist() == FRAME.eval(text).to_numpy(dtype=bool).tolist()


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="agepurose<>=!'\"()[].,_`0123 andortilmbx:+*\\\n", max_size=40))
def test_any_text_is_evaluated_or_refused(text):
    try:
        found = rows(text)
    except InvalidInput:
        return
    assert found.dtype == np.bool_
    assert len(found) == len(FRAME)
