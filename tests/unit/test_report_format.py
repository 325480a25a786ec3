"""Numbers, names and values as readers see them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explain_step.report.format import (
    clean,
    decimals,
    interval,
    listing,
    number,
    p_value,
    percent,
    plain,
    shorten,
    tidy,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.00"),
        (1666, "1,670"),
        (0.12345, "0.123"),
        (0.9999, "1.00"),
        (12.345, "12.3"),
        (-0.5, "\u22120.500"),
        (206_855.31, "207,000"),
        (2.19e-16, "2.19\u2009\u00d7\u200910\u207b\u00b9\u2076"),
        (3.2e12, "3.20\u2009\u00d7\u200910\u00b9\u00b2"),
        (np.float32(0.25), "0.250"),
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        (float("inf"), "\u2013"),
        (True, "\u2013"),
    ],
)
def test_numbers_have_three_digits_and_no_number_is_a_dash(value, shown):
    assert number(value) == shown


def test_a_small_number_in_a_column_is_not_shown_as_zero():
    assert number(0.0004, places=2) == "<0.01"
    assert number(-0.0004, places=2) == ">\u22120.01"
    assert number(0.0, places=2) == "0.00"


def test_a_column_shares_its_decimals():
    values = [0.0654, 0.0021, None, float("nan")]
    assert decimals(values) == 4
    assert decimals([206_855.0, 0.5]) == 0
    assert decimals([0.9996]) == 2, "rounds up to 1.00, not 1.000"


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_keeps_its_sign_and_never_shows_python_words(value):
    text = number(value)
    assert "e" not in text
    assert "nan" not in text
    assert (value < 0) == text.startswith("\u2212")


@given(st.text(max_size=200))
def test_clean_text_is_one_printable_line_that_can_be_written(text):
    line = clean(text)
    assert len(line.splitlines()) <= 1
    assert len(line) == len(text)
    line.encode("utf-8")
    assert not set(line) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x00\x1b\t")


@given(st.text(max_size=300), st.integers(5, 80))
def test_a_shortened_name_fits_and_keeps_both_ends(text, width):
    short = shorten(text, width)
    assert len(short) <= width
    assert short == text or (text.startswith(short.split("\u2026")[0]) and "\u2026" in short)


def test_values_of_the_data_keep_what_they_are():
    shown = {
        "0.2210000038146972": "0.221",
        "2008": "2008",
        "007": "007",
        "yes": "yes",
        "1.5": "1.5",
        "": "\u2013",
    }
    assert {k: tidy(k) for k in shown} == shown
    assert tidy(-0.123456) == "\u22120.1235"
    assert tidy(3.0) == "3"
    assert tidy(float("nan")) == "\u2013"


def test_other_forms():
    assert interval(0.7962, 0.8749) == "0.796 to 0.875"
    assert interval(-0.01, float("nan")) == "\u2013"
    assert percent(0.0004) == "<1%"
    assert percent(0) == "0%"
    assert [p_value(p) for p in (1e-9, 0.0312, 0.5)] == ["<0.001", "0.031", "0.50"]
    assert plain(listing(["a", "b", "c"])) == "a, b and c"
