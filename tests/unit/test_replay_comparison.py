"""Tables against recomputed tables: which verdict, by which tolerance, and what is said about it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from explain_step.snapshot.comparison import (
    DEFAULT,
    VERDICTS,
    Tolerance,
    choose_tolerance,
    compare_table,
    recorded_tolerance,
    worst,
)

EXACT, STATISTICAL = Tolerance(kind="exact"), Tolerance(kind="statistical")


def importance(**changes) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "output": ["yes", "yes", "no", "no"],
            "feature": ["age", "debt", "age", "debt"],
            "mean_abs_shap": [0.5, 0.25, 5e5, 0.125],
            "ci_low": [0.4, 0.2, 4e5, np.nan],
            "ci_high": [0.6, 0.3, 6e5, np.nan],
            "rank": [1.0, 2.0, 1.0, 2.0],
        }
    )
    return table.assign(**changes)


def verdict(changed: pd.DataFrame, tolerance: Tolerance = DEFAULT, **more) -> str:
    return compare_table(importance(), changed, name="t", tolerance=tolerance, **more).verdict


def test_equal_tables_are_identical_in_every_class() -> None:
    for tolerance in (DEFAULT, EXACT, STATISTICAL):
        assert verdict(importance(), tolerance) == "identical"


def test_the_scale_is_the_column_of_one_output() -> None:
    off = [0.5, 0.25, 5e5, 0.125]
    assert verdict(importance(mean_abs_shap=[*off[:2], 5e5 + 0.04, off[3]])) == "within_tolerance"
    assert verdict(importance(mean_abs_shap=[*off[:3], 0.125 + 0.04])) == "within_tolerance"
    assert verdict(importance(mean_abs_shap=[0.5, 0.25 + 1e-6, *off[2:]])) == "different"
    assert verdict(importance(mean_abs_shap=[0.5, 0.25 + 1e-9, *off[2:]])) == "within_tolerance"


def test_other_versions_get_the_tolerance_of_single_precision() -> None:
    changed = importance(mean_abs_shap=[0.5, 0.25 + 1e-6, 5e5, 0.125])
    assert verdict(changed) == "different"
    assert verdict(changed, same_environment=False) == "within_tolerance"
    assert verdict(changed, EXACT, same_environment=False) == "within_tolerance"


def test_an_exact_table_that_is_off_by_rounding_is_told_not_failed() -> None:
    found = compare_table(
        importance(), importance(ci_low=[0.4 + 1e-16, 0.2 + 1e-15, 4e5, np.nan]), name="t", tolerance=EXACT
    )
    assert (found.verdict, found.kind, found.column) == ("within_tolerance", "exact", "ci_low")
    assert found.largest == pytest.approx(1e-15, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": [2.0, 1.0, 1.0, 2.0]}, "rank differs by up to 1"),
        (
            {"feature": ["age", "loan", "age", "debt"]},
            "feature is another text in 1 of 4 rows, first in row 1 (output=yes): 'loan', recorded 'debt'",
        ),
        (
            {"feature": ["age", "loan", "age", "fee"], "output": ["yes", "yes", "no", "maybe"]},
            "output is another text in 1 of 4 rows, first in row 3 (feature=debt): 'maybe', recorded 'no'; "
            "feature too, 2 rows in all",
        ),
        ({"feature": ["age", None, "age", "debt"]}, "first in row 1 (output=yes): nothing, recorded 'debt'"),
        ({"ci_low": [np.nan, 0.2, 4e5, np.nan]}, "ci_low has missing values in other rows, first in row 0"),
        ({"mean_abs_shap": [np.inf, 0.25, 5e5, 0.125]}, "mean_abs_shap differs by up to inf"),
    ],
)
def test_what_is_different_is_named(changes, said) -> None:
    found = compare_table(importance(), importance(**changes), name="t")
    assert found.verdict == "different"
    assert said in found.reason


def test_a_changed_word_is_found_among_rows_in_another_order() -> None:
    moved = importance(feature=["age", "loan", "age", "debt"]).iloc[[3, 1, 0, 2]].reset_index(drop=True)
    found = compare_table(importance(), moved, name="t")
    assert (found.verdict, found.column) == ("different", "feature")
    assert "first in row 1 (output=yes): 'loan', recorded 'debt'" in found.reason


@pytest.mark.parametrize(("before", "now"), [("None", None), ("True", True), ("0.5", 0.5), (None, "")])
def test_what_only_looks_alike_is_different(before, now) -> None:
    """A missing value is not the word None, and a number is not its text."""
    table = pd.DataFrame({"feature": ["age", "debt"], "level": pd.Series([before, "x"], dtype=object)})
    other = table.assign(level=pd.Series([now, "x"], dtype=object))
    found = compare_table(table, other, name="t")
    assert (found.verdict, found.column) == ("different", "level")
    assert "first in row 0 (feature=age)" in found.reason
    alone = compare_table(table[["level"]], other[["level"]], name="t")
    assert (alone.verdict, alone.column) == ("different", "level")


def test_rows_in_another_order_are_matched_by_their_text() -> None:
    assert verdict(importance().iloc[[1, 0, 3, 2]].reset_index(drop=True)) == "within_tolerance"


def test_repeated_text_is_matched_by_its_turn() -> None:
    curve = pd.DataFrame({"feature": ["a"] * 3, "x": [1.0, 2.0, 3.0], "value": [0.1, 0.2, 0.3]})
    assert compare_table(curve, curve.assign(x=[1.0, 2.0, 3.5]), name="t").verdict == "different"
    assert compare_table(curve, curve.iloc[::-1].reset_index(drop=True), name="t").verdict == "different"


def test_lost_rows_and_columns_are_different_and_new_columns_are_not() -> None:
    assert verdict(importance().iloc[:3]) == "different"
    assert verdict(importance().drop(columns="rank")) == "different"
    assert verdict(importance().assign(more=1.0)) == "identical"


def test_attributions_share_one_scale_per_output() -> None:
    table = pd.DataFrame(
        {
            "row_id": ["1", "2"],
            "output": "y",
            "prediction": [1e3, 1.0],
            "shap:a": [1e3, 0.0],
            "shap:b": [1e-6, 0],
        }
    )
    nudged = table.assign(**{"shap:b": [2e-6, 0.0]})
    assert compare_table(table, nudged, name="attributions").verdict == "within_tolerance"
    assert compare_table(table.drop(columns="shap:a"), nudged.drop(columns="shap:a"), name="x").verdict == (
        "within_tolerance"
    )
    assert (
        compare_table(table, table.assign(**{"shap:b": [1e-2, 0.0]}), name="attributions").verdict
        == "different"
    )


def test_numbers_as_text_are_numbers_and_names_of_rows_are_not() -> None:
    table = pd.DataFrame({"row_id": ["100000000", "2"], "feature_value": ["1.5", "0.3"]})
    changed = table.assign(feature_value=["1.5", "0.30000000000000004"])
    assert compare_table(table, changed, name="examples").verdict == "within_tolerance"
    assert compare_table(table, table.assign(row_id=["100000001", "2"]), name="e").verdict == "different"


def test_work_cut_by_a_budget_is_judged_by_standard_errors() -> None:
    moved = importance(
        mean_abs_shap=[0.6, 0.25, 5e5, 0.125]
    )  # intervals are 0.2 wide: 2 standard errors of 0.05
    assert verdict(moved, STATISTICAL) == "consistent"
    far = importance(mean_abs_shap=[0.9, 0.25, 5e5, 0.125])
    assert verdict(far, STATISTICAL) == "different"
    assert verdict(moved.iloc[:3], STATISTICAL) == "consistent"


def test_without_standard_errors_nothing_can_be_said() -> None:
    found = compare_table(
        pd.DataFrame({"feature": ["a"], "count": [3.0]}),
        pd.DataFrame({"feature": ["a"], "count": [4.0]}),
        name="t",
        tolerance=STATISTICAL,
    )
    assert found.verdict == "not_replayable"
    assert "no standard error" in found.reason


def test_a_tolerance_is_read_back_and_a_generous_one_is_not_believed() -> None:
    assert recorded_tolerance({"tolerance": EXACT.record()}) == EXACT
    assert recorded_tolerance({}) == DEFAULT
    for broken in ({"relative": 0.5}, {"absolute": float("nan")}, {"class": "anything"}, {"relative": "1"}):
        assert recorded_tolerance({"tolerance": {**EXACT.record(), **broken}}) == DEFAULT


def test_the_class_is_chosen_by_method_and_budget() -> None:
    assert choose_tolerance("tree_interventional", cut=False).kind == "exact"
    assert choose_tolerance("permutation", cut=False).kind == "numeric"
    assert choose_tolerance("tree_interventional", cut=True).kind == "statistical"


def test_the_worst_verdict_counts() -> None:
    assert worst(VERDICTS) == "different"
    assert worst(["identical", "consistent", "within_tolerance"]) == "consistent"
    assert worst([]) == "not_replayable"
