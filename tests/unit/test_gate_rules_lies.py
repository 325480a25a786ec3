"""Evidence that lies: tables that contradict themselves, renamed columns, intervals without end."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from rules_kit import asserting, evidence, findings, policy, review, verdicts, with_table, without

from explain_step.gate.rules.base import at_most

NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"share": 0.05, "share_ci_low": 0.04, "share_ci_high": 0.06}, "the share of `debt` is not its part"),
        ({"share": -0.5}, "the share of `debt` is not its part"),
        ({"mean_abs_shap": -1.0}, "`debt` has a negative mean |SHAP|"),
    ],
)
def test_a_table_of_importance_that_contradicts_itself_proves_nothing(
    changes: dict[str, float], why: str
) -> None:
    def lie(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table["feature"] == "debt", list(changes)] = list(changes.values())
        return table

    given = with_table("importance", lie)
    for code, assertion in (("GATE030", {"forbidden": True}), ("GATE031", {"max_share": 0.9})):
        (finding,) = findings(code, given, asserting(features="debt", **assertion))
        assert finding.verdict == "fail"
        assert f"contradicts itself: {why}" in finding.message


def test_the_mean_over_outputs_is_held_to_its_sizes_too() -> None:
    mean = "(mean over outputs)"

    def lie(table: pd.DataFrame) -> pd.DataFrame:
        false = table.assign(output=mean, share=table["share"].mean())
        return pd.concat([table, false], ignore_index=True)

    asked = asserting(features="debt", max_share=0.9, output=mean)
    (finding,) = findings("GATE031", with_table("importance", lie), asked)
    assert finding.verdict == "fail"
    assert "contradicts itself" in finding.message


def test_a_row_that_is_left_out_of_the_table_is_missed_in_the_sum() -> None:
    given = without("importance", feature="group")
    assert verdicts("GATE030", given, asserting(features="group", forbidden=True)) == {"fail"}


@pytest.mark.parametrize("other", ["Leak", " leak", "lea\u200bk", "l\u00e9ak", "\uff4ceak", "\u0142eak"])
def test_a_renamed_column_is_not_passed_over(other: str) -> None:
    renamed = with_table("importance", lambda t: t.assign(feature=t["feature"].replace({"debt": other})))
    for wanted in ("leak", "leak*"):
        for assertion in ({"forbidden": True}, {"max_total_share": 1.0}):
            code = "GATE030" if "forbidden" in assertion else "GATE032"
            asked = asserting(features=["group", wanted], **assertion)
            found = [f for f in findings(code, renamed, asked) if f.verdict == "undecided"]
            assert [f.evidence["feature"] for f in found] == [other], (code, wanted)
            assert "name it in the policy too" in found[0].message


def test_an_interval_without_end_decides_nothing() -> None:
    for low, high in (
        (-math.inf, math.inf),
        (0.1, math.inf),
        (-math.inf, 0.5),
        (NAN, math.inf),
        (-math.inf, NAN),
    ):
        assert at_most(0.4, low, high, bound=0.6) == "undecided"
    assert at_most(0.4, NAN, NAN, bound=0.6) == "pass"


@pytest.mark.parametrize(
    ("author", "reviewer", "verdict"),
    [
        ("ann", "ann@bank.example", "fail"),
        ("ann@bank.example", "Ann", "fail"),
        ("BANK\\ann", "ann", "fail"),
        ("ann", "\uff41nn", "fail"),
        ("s\u00f8ren", "soren", "fail"),
        ("ann@risk.example", "ann@sales.example", "pass"),
        ("ann", "anna@bank.example", "pass"),
    ],
)
def test_the_author_under_another_spelling_approves_nothing(author: str, reviewer: str, verdict: str) -> None:
    given = evidence(author=author, reviews=(review(reviewer),))
    assert verdicts("GATE061", given, policy(reviews={"approvals": 1})) == {verdict}
