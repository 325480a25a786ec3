"""Rules that hold numbers against bounds: intervals, missing values, unknown names, other outputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_kit import (
    asserting,
    champion,
    evidence,
    findings,
    manifest,
    policy,
    quantity,
    said,
    setting,
    shares_of_sizes,
    verdicts,
    with_table,
    without,
)

from explain_step.gate import DEFAULT, Evidence, decide
from explain_step.gate.rules.base import Number, at_least, at_most, condensed, found, worst

NAN = float("nan")
RANK = {"fail": 0, "undecided": 1, "pass": 2}
numbers = st.floats(-5, 5) | st.just(NAN) | st.sampled_from([math.inf, -math.inf])


@settings(deadline=None)
@given(numbers, numbers, numbers, st.floats(-5, 5), st.floats(0, 5))
def test_a_looser_bound_never_turns_pass_into_fail(
    value: float, low: float, high: float, bound: float, more: float
) -> None:
    tight = at_most(value, low, high, bound=bound)
    loose = at_most(value, low, high, bound=bound + more)
    assert RANK[loose] >= RANK[tight]
    assert (
        RANK[at_least(value, low, high, bound=bound - more)] >= RANK[at_least(value, low, high, bound=bound)]
    )
    if not math.isfinite(value):
        assert tight == "undecided"


@settings(deadline=None)
@given(numbers, numbers, numbers, st.floats(-5, 5))
def test_what_passes_lies_inside_with_every_end(value: float, low: float, high: float, bound: float) -> None:
    verdict = Number(value=value, low=low, high=high).verdict(most=bound)
    if verdict == "pass":
        assert max(value, low, high) <= bound
    if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(value)):
        assert verdict == "undecided"


def test_numbers_in_words_and_their_arithmetic() -> None:
    a, b = Number(value=0.5, low=0.46, high=0.53), Number(value=0.3, low=0.26, high=0.34)
    gap = a.minus(b)
    assert gap.value == pytest.approx(0.2)
    assert gap.low == pytest.approx(0.2 - math.hypot(0.04, 0.04))
    assert gap.high == pytest.approx(0.2 + math.hypot(0.03, 0.04))
    assert Number(value=-0.2, low=-0.3, high=0.1).size == Number(value=0.2, low=0.0, high=0.3)
    assert Number(value=-0.2, low=-0.3, high=-0.1).size == Number(value=0.2, low=0.1, high=0.3)
    assert Number(value=0.7134, low=0.68, high=0.741).text(percent=True) == "71.3% [68%, 74.1%]"
    assert Number(value=NAN).text() == "not defined"
    assert worst("not_applicable", "pass", "undecided") == "undecided"
    assert Number(value=0.2, low=0.1, high=0.3).verdict() == "undecided"  # no bound says nothing


def test_many_findings_are_shown_in_part_and_none_is_lost() -> None:
    many = [found("GATE031", "fail" if i % 2 else "undecided", f"{i}", i=i) for i in range(100)]
    shown = list(condensed([*many, found("GATE031", "pass", "fine"), found("GATE031", "pass", "too")]))
    assert len(shown) == 22
    assert shown[0].verdict == "fail"
    assert shown[20].evidence["more"] == 80
    assert shown[20].verdict == "fail"
    assert shown[-1].message == "fine (1 more hold)"


# ------------------------------------------------------------------------------------------------ shares


def share(value: float, low: float, high: float, feature: str = "debt") -> Evidence:
    values = {"share": value, "share_ci_low": low, "share_ci_high": high}
    return setting("importance", {"feature": feature}, values)


def test_a_share_message_is_one_a_reviewer_can_act_on() -> None:
    asked = asserting(features="debt", max_share=0.6)
    given = share(0.71, 0.68, 0.74)
    assert said("GATE031", given, asked) == (
        "`debt` has 71% [68%, 74%] of the importance; at most 60% is allowed"
    )
    assert verdicts("GATE031", given, asked) == {"fail"}


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((0.5, 0.4, 0.6), "pass"),
        ((0.59, 0.5, 0.61), "undecided"),
        ((0.61, 0.59, 0.7), "undecided"),
        ((0.7, 0.61, 0.8), "fail"),
        ((NAN, 0.1, 0.2), "undecided"),
        ((0.5, NAN, NAN), "undecided"),
        ((0.5, 0.4, NAN), "undecided"),
        ((NAN, NAN, NAN), "undecided"),
    ],
)
def test_a_share_that_straddles_or_is_not_known_is_undecided(numbers: Any, verdict: str) -> None:
    assert verdicts("GATE031", share(*numbers), asserting(features="debt", max_share=0.6)) == {verdict}


def test_shares_of_nothing_are_not_defined() -> None:
    zero = with_table("importance", lambda t: t.assign(mean_abs_shap=0.0, share=0.0, share_ci_low=0.0))
    assert verdicts("GATE031", zero, asserting(features="*", max_share=0.9)) == {"undecided"}
    assert verdicts("GATE032", zero, asserting(features="*", max_total_share=1.0)) == {"undecided"}
    blank, asked = (
        setting("importance", {"feature": "age"}, {"mean_abs_shap": NAN}),
        asserting(features="debt", max_share=0.9),
    )
    assert verdicts("GATE031", blank, asked) == {"undecided"}
    assert "the share of `debt` in the importance is not defined" in said("GATE031", blank, asked)


def test_no_verdict_depends_on_the_unit_of_the_output() -> None:
    asked = asserting(features="*", max_share=0.65, max_total_share=1.0, direction="increasing")
    for unit in (1e-6, 1e6):
        scaled = with_table("importance", lambda t, u=unit: t.assign(mean_abs_shap=t["mean_abs_shap"] * u))
        for code in ("GATE031", "GATE032", "GATE033"):
            assert findings(code, scaled, asked) == findings(code, evidence(), asked), (code, unit)


def test_estimated_shares_allow_for_the_sampling_error() -> None:
    asked = asserting(features="debt", max_share=0.68)
    assert verdicts("GATE031", evidence(), asked) == {"pass"}
    noisy = with_table("importance", lambda t: t.assign(mean_standard_error=t["mean_abs_shap"] * 0.2))
    assert verdicts("GATE031", noisy, asked) == {"undecided"}
    unknown = with_table("importance", lambda t: t.assign(mean_standard_error=NAN))
    assert verdicts("GATE031", unknown, asked) == {"undecided"}


def test_a_total_allows_for_features_that_move_together() -> None:
    assert verdicts("GATE032", evidence(), asserting(features="*", max_total_share=1.0)) == {"pass"}
    (whole,) = findings("GATE032", evidence(), asserting(features="*", max_total_share=0.5))
    assert whole.evidence["ci_low"] == pytest.approx(1.0)  # all shares make up one, whatever their intervals
    pair = findings("GATE032", evidence(), asserting(features=["debt", "income"], max_total_share=0.98))
    assert pair[0].message.startswith("`debt`, `income` together have 97.1%")
    assert pair[0].evidence["ci_high"] < 0.98  # from the other features; the sum of both ends is above one
    value, low, high = (pair[0].evidence[key] for key in ("value", "ci_low", "ci_high"))
    for bound in ((value + low) / 2, (value + high) / 2):
        asked = asserting(features=["debt", "income"], max_total_share=bound)
        assert verdicts("GATE032", evidence(), asked) == {"undecided"}


def test_unknown_features_never_pass_silently() -> None:
    for assertion in (
        {"max_share": 0.9},
        {"max_total_share": 0.9},
        {"direction": "increasing"},
        {"monotone": "increasing"},
        {"levels": {"a": "positive"}},
    ):
        decision = decide(evidence(), asserting(features=["Debt"], **assertion))
        assert decision.outcome == "refuse"
        assert "the nearest is `debt`" in decision.blocking[0].message
        unmatched = decide(evidence(), asserting(features=["zip*"], **assertion))
        assert "no feature of the model matches `zip*`" in " ".join(f.message for f in unmatched.findings)


def test_a_forbidden_feature_that_is_not_there_passes_and_says_so() -> None:
    given = asserting(features=["leek", "post_*"], forbidden=True)
    (finding,) = findings("GATE030", evidence(), given)
    assert finding.verdict == "pass"
    assert "the model has no feature `leek`" in finding.message
    zero = setting(
        "importance",
        {"feature": "group"},
        {"mean_abs_shap": 0.0, "share": 0.0, "share_ci_low": 0.0, "share_ci_high": 0.0},
    )
    assert verdicts("GATE030", zero, asserting(features="group", forbidden=True)) == {"pass"}
    assert verdicts("GATE030", evidence(), asserting(features="gr*", forbidden=True)) == {"fail"}


def test_a_forbidden_feature_of_estimated_or_missing_importance_is_undecided() -> None:
    asked = asserting(features="group", forbidden=True)
    noisy = with_table("importance", lambda t: t.assign(mean_standard_error=0.01))
    assert verdicts("GATE030", noisy, asked) == {"undecided"}
    left_out = with_table("importance", lambda t: shares_of_sizes(t[t["feature"] != "group"]))
    assert verdicts("GATE030", left_out, asked) == {"undecided"}
    assert verdicts(
        "GATE030", setting("importance", {"feature": "group"}, {"mean_abs_shap": NAN}), asked
    ) == {"undecided"}


def test_names_are_found_as_written_before_they_are_patterns() -> None:
    def odd(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(feature=table["feature"].replace({"debt": "d[eb]t", "age": "det"}))

    given = with_table("importance", odd, manifest=manifest(data={"features": ["d[eb]t", "det"]}))
    (finding,) = findings("GATE031", given, asserting(features="d[eb]t", max_share=0.5))
    assert finding.evidence["feature"] == "d[eb]t"
    names = {
        f.evidence["feature"] for f in findings("GATE031", given, asserting(features="d*t", max_share=0))
    }
    assert names == {"d[eb]t", "det"}


@pytest.mark.parametrize("table", [None, lambda t: t.drop(columns="share_ci_low"), lambda t: t.iloc[:0]])
def test_importance_that_is_not_there_fails_what_rests_on_it(table: Any) -> None:
    given = with_table("importance", table or (lambda t: None))
    for code, assertion in (("GATE030", {"forbidden": True}), ("GATE031", {"max_share": 1})):
        assert verdicts(code, given, asserting(features="debt", **assertion)) == {"fail"}


def test_a_feature_twice_in_the_table_is_refused() -> None:
    def twice(table: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([table, table.tail(1)], ignore_index=True)

    assert verdicts("GATE031", with_table("importance", twice), asserting(features="*", max_share=1)) == {
        "fail"
    }


# ------------------------------------------------------------------------------------------- several outputs


def several(table: pd.DataFrame) -> pd.DataFrame:
    aggregate = table.assign(output="(mean over outputs)", mean_shap=NAN, value_correlation=NAN)
    other = table.assign(output="no", value_correlation=-table["value_correlation"])
    return pd.concat([table, other, aggregate], ignore_index=True)


def test_every_output_is_judged_and_the_mean_only_where_it_is_named() -> None:
    given = with_table("importance", several)
    listed = findings("GATE031", given, asserting(features="debt", max_share=0.5))
    assert [f.evidence["output"] for f in listed] == ["yes", "no"]
    assert "for the output `no`" in listed[1].message
    named = asserting(features="debt", max_share=0.5, output="(mean over outputs)")
    assert [f.evidence["output"] for f in findings("GATE031", given, named)] == ["(mean over outputs)"]
    up = {"features": "debt", "direction": "increasing"}
    assert verdicts("GATE033", given, asserting(**up)) == {"pass", "fail"}
    assert verdicts("GATE033", given, asserting(**up, output="yes")) == {"pass"}
    assert verdicts("GATE033", given, asserting(**up, output="(mean over outputs)")) == {"undecided"}
    assert "the nearest is `yes`" in said("GATE033", given, asserting(**up, output="yess"))
    assert verdicts("GATE033", given, asserting(**up, output="yess")) == {"fail"}


# ------------------------------------------------------------------------------------------------- directions


def test_the_sign_of_an_effect_is_its_rank_correlation_with_an_interval() -> None:
    up, down = (asserting(features="age", direction=d) for d in ("increasing", "decreasing"))
    for rho, verdict in (
        (0.6, "pass"),
        (0.05, "undecided"),
        (-0.6, "fail"),
        (NAN, "undecided"),
        (2, "undecided"),
    ):
        given = setting("importance", {"feature": "age"}, {"value_correlation": rho})
        assert verdicts("GATE033", given, up) == {verdict}
    assert verdicts("GATE033", evidence(), down) == {"fail"}
    (finding,) = findings("GATE033", evidence(), up)
    # Bonett and Wright 2000: tanh(atanh(r) -+ z sqrt((1 + r^2 / 2) / (n - 3)))
    rho = finding.evidence["value"]
    reach = 1.959964 * math.sqrt((1 + rho**2 / 2) / 397)
    assert finding.evidence["ci_low"] == pytest.approx(math.tanh(math.atanh(rho) - reach), abs=1e-6)
    assert said("GATE033", evidence(manifest=quantity(rows=3)), up).count("no rank correlation") == 1
    assert "no rank correlation" not in said("GATE033", evidence(manifest=quantity(rows=4)), up)


def test_a_categorical_column_has_levels_and_no_direction() -> None:
    assert "assert its levels instead" in said(
        "GATE033", evidence(), asserting(features="group", direction="increasing")
    )
    assert verdicts("GATE034", evidence(), asserting(features="group", monotone="increasing")) == {
        "undecided"
    }
    missing = asserting(features="group", levels={"c": "positive"})
    assert verdicts("GATE035", evidence(), missing) == {"fail"}
    assert "has no level `c`" in said("GATE035", evidence(), missing)
    numeric = asserting(features="debt", levels={"1": "positive"})
    assert verdicts("GATE035", evidence(), numeric) == {"fail"}


def test_a_level_whose_interval_straddles_zero_is_undecided() -> None:
    asked = asserting(features="group", levels={"a": "positive"})
    for low, high, verdict in ((-0.1, 0.2, "undecided"), (NAN, NAN, "undecided"), (0.01, 0.2, "pass")):
        given = setting(
            "dependence",
            {"feature": "group", "curve": "shap", "level": "a"},
            {"value": 0.05, "ci_low": low, "ci_high": high},
        )
        assert verdicts("GATE035", given, asked) == {verdict}


def test_a_feature_without_effect_has_no_direction() -> None:
    values = {"mean_abs_shap": 0.0, "share": 0.0, "share_ci_low": 0.0, "share_ci_high": 0.0}
    given = setting("importance", {"feature": "debt"}, values)
    for code, asked in (
        ("GATE033", {"direction": "decreasing"}),
        ("GATE034", {"monotone": "decreasing"}),
        ("GATE035", {"levels": {"a": "positive"}}),
    ):
        assert verdicts(code, given, asserting(features="debt", **asked)) == {"not_applicable"}
        assert "has no direction" in said(code, given, asserting(features="debt", **asked))


def curve(values: list[float], half: float | list[float]) -> Evidence:
    halves = np.broadcast_to(np.asarray(half, dtype=float), len(values))

    def change(table: pd.DataFrame) -> pd.DataFrame:
        points = pd.DataFrame(
            {
                "output": "yes",
                "feature": "debt",
                "curve": "ale",
                "x": np.arange(len(values), dtype=float),
                "value": values,
                "ci_low": np.asarray(values) - halves,
                "ci_high": np.asarray(values) + halves,
                "count": 20.0,
            }
        )
        return pd.concat([table[table["feature"] != "debt"], points], ignore_index=True)

    return with_table("dependence", change)


@pytest.mark.parametrize(
    ("values", "half", "verdict"),
    [
        ([0, 1, 2, 3], 0.01, "pass"),
        ([0, 1, 1, 3], 0.01, "pass"),
        ([0, 1, 0.95, 3], 0.01, "pass"),  # a small reversal, within the tolerance
        ([0, 2, 1, 3], 0.01, "fail"),
        ([0, 2, 1, 3], 1.0, "undecided"),
        ([0, 1, 2, 3], 1.5, "undecided"),
        ([3, 2, 1, 0], 0.01, "fail"),
        ([0, 1, NAN, 3], 0.01, "pass"),  # a bin without rows
        ([0, 1, 2, 3], [0.01, NAN, 0.01, 0.01], "undecided"),
        ([1], 0.01, "undecided"),
    ],
)
def test_a_curve_is_monotone_where_no_reversal_is_too_large(values: Any, half: Any, verdict: str) -> None:
    assert verdicts("GATE034", curve(values, half), asserting(features="debt", monotone="increasing")) == {
        verdict
    }
    mirrored, falling = curve([-v for v in values], half), asserting(features="debt", monotone="decreasing")
    assert verdicts("GATE034", mirrored, falling) == {verdict}
    if verdict in ("pass", "fail"):
        assert "its largest rise" in said("GATE034", mirrored, falling)


def test_a_curve_that_is_not_there_fails_and_the_shap_curve_stands_in_for_ale() -> None:
    asked = asserting(features="debt", monotone="increasing")
    gone = without("dependence", feature="debt")
    assert verdicts("GATE034", gone, asked) == {"fail"}
    assert "larger top_features" in said("GATE034", gone, asked)
    (finding,) = findings("GATE034", without("dependence", feature="debt", curve="ale"), asked)
    assert finding.evidence["curve"] == "shap"
    assert verdicts("GATE034", without("dependence"), asked) == {"fail"}


# ---------------------------------------------------------------------------------------------------- quality


def test_the_control_is_never_taken_for_the_score() -> None:
    for name in ("masking_r2", "rank_stability", "sparsity_gini", "additivity_error"):
        listed = findings("GATE020", evidence(), policy(scores=[{"name": name, "min": -100, "max": -99}]))
        assert not [f for f in listed if "control" in str(f.evidence["variant"])]
        assert listed
    only = without("scores", score="masking_r2", variant="interventional")
    assert verdicts("GATE020", only, policy(scores=[{"name": "masking_r2", "min": 0}])) == {"fail"}


def test_scores_that_are_unknown_or_undefined() -> None:
    unknown = policy(scores=[{"name": "masking_r", "min": 0}])
    assert verdicts("GATE020", evidence(), unknown) == {"fail"}
    assert "the nearest is `masking_r2`" in said("GATE020", evidence(), unknown)
    variant = policy(scores=[{"name": "rank_stability", "variant": "top9", "min": 0}])
    assert verdicts("GATE020", evidence(), variant) == {"fail"}
    values = {"variant": "", "value": NAN, "ci_low": NAN, "ci_high": NAN, "reason": "one column only"}
    given = setting("scores", {"score": "rank_stability", "variant": "top4"}, values)
    for bound in ({}, {"variant": "top4"}):
        asked = policy(scores=[{"name": "rank_stability", "min": 0.5, **bound}])
        assert "undecided" in verdicts("GATE020", given, asked)
        assert "one column only" in said("GATE020", given, asked)
    unbounded = setting(
        "scores", {"score": "rank_stability", "variant": "top4"}, {"ci_low": NAN, "ci_high": NAN}
    )
    told = said("GATE020", unbounded, policy(scores=[{"name": "rank_stability", "min": 0.5}]))
    assert "`rank_stability` (top4) is" in told
    assert "None" not in told
    assert verdicts("GATE020", without("scores"), unknown) == {"fail"}


def test_a_score_without_interval_by_nature_stands_for_itself() -> None:
    asked = policy(scores=[{"name": "additivity_error", "variant": "max", "max": 1e-6}])
    where = {"score": "additivity_error", "variant": "max"}
    bare = setting("scores", where, {"ci_low": NAN, "ci_high": NAN})
    assert verdicts("GATE020", bare, asked) == {"pass"}
    assert "no interval" in said("GATE020", bare, asked)
    half = setting("scores", where, {"ci_low": 0.0, "ci_high": NAN})
    assert verdicts("GATE020", half, asked) == {"undecided"}
    endless = setting("scores", where, {"value": -math.inf, "ci_low": NAN, "ci_high": NAN})
    assert verdicts("GATE020", endless, asked) == {"undecided"}


def test_performance_needs_its_interval_and_its_metric() -> None:
    asked = policy(performance=[{"name": "roc_auc", "min": 0.9}])
    blank = {"ci_low": NAN, "ci_high": NAN}
    assert verdicts("GATE021", setting("performance", {"metric": "roc_auc"}, blank), asked) == {"undecided"}
    wide = {"ci_low": 0.85}
    assert verdicts("GATE021", setting("performance", {"metric": "roc_auc"}, wide), asked) == {"undecided"}
    assert verdicts("GATE021", evidence(), policy(performance=[{"name": "f1", "min": 0}])) == {"fail"}
    assert verdicts("GATE021", without("performance"), asked) == {"fail"}


def test_a_missing_table_says_the_manifests_reason() -> None:
    sections = {**manifest()["sections"], "performance": {"state": "missing", "reason": "no labels"}}
    given = without("performance")
    told = Evidence(
        **{**{f: getattr(given, f) for f in given.__slots__}, "manifest": manifest(sections=sections)}
    )
    assert "no labels" in said("GATE021", told, policy(performance=[{"name": "roc_auc", "min": 0}]))


# --------------------------------------------------------------------------------------------------- segments


def withheld(*levels: str, reason: str = "under 20 rows") -> Evidence:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        hidden = table["level"].isin(levels)
        kept = table[~hidden | ~table.duplicated(["segment", "level"])].copy()
        gone = kept["level"].isin(levels)
        kept.loc[gone, "withheld"] = reason
        blank = [c for c in kept.columns if kept[c].dtype == float]
        kept.loc[gone, blank] = NAN
        kept.loc[gone, ["output", "feature"]] = None
        return kept

    return with_table("segments", change)


def test_a_required_segment_that_is_withheld_does_not_pass() -> None:
    asked, lenient = (policy(segments={"required": "group", "allow_withheld": a}) for a in (False, True))
    assert verdicts("GATE040", withheld("a", "b"), asked) == {"fail"}
    assert verdicts("GATE040", withheld("a", "b"), lenient) == {"fail"}
    assert verdicts("GATE040", withheld("a"), asked) == {"undecided"}
    assert "`a` withheld" in said("GATE040", withheld("a"), asked)
    assert verdicts("GATE040", withheld("a"), lenient) == {"pass"}
    assert verdicts("GATE040", withheld("a", reason="no rows"), asked) == {"pass"}
    assert verdicts("GATE040", without("segments"), asked) == {"fail"}
    assert verdicts("GATE040", evidence(), policy(segments={"required": "gr*"})) == {"pass"}
    assert verdicts("GATE040", evidence(), policy(segments={"required": "(all rows)"})) == {"fail"}


def test_gaps_of_withheld_levels_are_undecided() -> None:
    for code, bound in (("GATE041", "max_performance_gap"), ("GATE042", "max_importance_gap")):
        asked, lenient = (policy(segments={bound: 3.0, "allow_withheld": a}) for a in (False, True))
        assert verdicts(code, withheld("a"), asked) == {"undecided", "pass"}
        assert verdicts(code, withheld("a"), lenient) == {"pass"}
        assert verdicts(code, withheld("a", reason="no rows"), asked) == {"pass"}
        assert verdicts(code, evidence(), policy(segments={bound: 3.0, "compared": "grp"})) == {"fail"}
        only_all = with_table("segments", lambda t: t[t["segment"] == "(all rows)"])
        assert verdicts(code, only_all, asked) == {"fail"}
        assert verdicts(code, without("segments"), asked) == {"fail"}


def test_a_gap_is_held_by_its_size_with_its_interval() -> None:
    asked = policy(segments={"max_performance_gap": 0.1})
    for value, low, high, verdict in (
        (-0.05, -0.09, -0.01, "pass"),
        (-0.05, -0.15, 0.05, "undecided"),
        (0.2, 0.15, 0.25, "fail"),
        (NAN, NAN, NAN, "undecided"),
        (0.0, NAN, NAN, "undecided"),
    ):
        given = with_table(
            "segments",
            lambda t, v=(value, low, high): t.assign(
                metric_difference=v[0], metric_difference_ci_low=v[1], metric_difference_ci_high=v[2]
            ),
        )
        assert verdicts("GATE041", given, asked) == {verdict}
    assert verdicts("GATE041", with_table("segments", lambda t: t.assign(metric_value=NAN)), asked) == {
        "fail"
    }


def test_an_importance_gap_is_a_fraction_of_the_overall_mean() -> None:
    values = {"difference": 0.3, "difference_ci_low": 0.29, "difference_ci_high": 0.31}
    given = setting("segments", {"level": "a", "feature": "debt"}, values)
    (finding,) = findings("GATE042", given, policy(segments={"max_importance_gap": 5.0}))
    overall = evidence().tables["segments"].query("segment == '(all rows)' and feature == 'noise'")
    assert finding.verdict == "pass"
    assert overall["mean_abs_shap"].iloc[0] > 0
    hidden = setting("segments", {"level": "a"}, {"feature": None, "output": None})
    assert "undecided" in verdicts("GATE042", hidden, policy(segments={"max_importance_gap": 5.0}))
    zero = setting("segments", {"segment": "(all rows)", "feature": "debt"}, {"mean_abs_shap": 0.0})
    assert "undecided" in verdicts("GATE042", zero, policy(segments={"max_importance_gap": 5.0}))


def test_rates_that_are_not_there_fail() -> None:
    asked = policy(segments={"max_rate_gap": {"tpr": 0.3}})
    assert verdicts("GATE043", without("segment_rates"), asked) == {"fail"}
    assert verdicts("GATE043", without("segment_rates", rate="tpr"), asked) == {"fail"}
    assert "no segment has the rate tpr" in said("GATE043", without("segment_rates", rate="tpr"), asked)
    assert verdicts("GATE043", without("segment_rates", level="(gap)"), asked) == {"undecided"}
    assert verdicts(
        "GATE043", setting("segment_rates", {"level": "a", "rate": "tpr"}, {"withheld": "few"}), asked
    ) == {
        "undecided",
        "pass",
    }
    assert verdicts("GATE043", setting("segment_rates", {"level": "(gap)"}, {"value": NAN}), asked) == {
        "undecided"
    }


# ------------------------------------------------------------------------------------------------------ drift


def test_drift_is_judged_with_both_intervals() -> None:
    tight, loose = (policy(drift={"max_share_change": b}) for b in (0.01, 0.1))
    assert verdicts("GATE050", evidence(champion=champion()), loose) == {"pass"}
    assert "undecided" in verdicts("GATE050", evidence(champion=champion()), tight)
    (finding,) = findings("GATE050", evidence(champion=champion()), loose)
    assert "a change of 0% [" in finding.message


def test_a_feature_that_comes_or_goes_had_no_share() -> None:
    fewer = dict(evidence().tables)
    table = fewer["importance"]
    fewer["importance"] = shares_of_sizes(table[table["feature"] != "income"])
    for case in (
        evidence(champion=champion(tables=fewer)),
        evidence(tables=fewer, champion=champion()),
    ):
        found = [
            f
            for f in findings("GATE050", case, policy(drift={"max_share_change": 0.1}))
            if f.verdict == "fail"
        ]
        assert [f.evidence["feature"] for f in found] == ["income"]
        assert abs(found[0].evidence["value"]) == pytest.approx(0.33, abs=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"problem": "its snapshot does not verify"}, "does not verify"),
        ({"quantity": None}, "does not say"),
        ({"quantity": {"output_space": "probability"}}, "output_space"),
        ({"quantity": {"outputs": ["no"]}}, "outputs"),
        ({"quantity": {"target": "paid"}}, "target"),
        ({"quantity": {"feature_perturbation": "correlation_dependent"}}, "its values are"),
        ({"tables": {}}, "no table `importance`"),
    ],
)
def test_unlike_quantities_are_never_compared(change: dict[str, Any], words: str) -> None:
    if change.get("quantity"):
        change = {"quantity": {**manifest()["quantity"], **change["quantity"]}}
    given = evidence(champion=champion(**change))
    assert verdicts("GATE050", given, policy(drift={"max_share_change": 1.0})) == {"undecided"}
    assert words in said("GATE050", given, policy(drift={"max_share_change": 1.0}))


def test_values_that_do_not_say_what_they_are_are_interventional_ones() -> None:
    """Snapshots from before there were others are compared with later ones."""
    older = {k: v for k, v in manifest()["quantity"].items() if k != "feature_perturbation"}
    given = evidence(champion=champion(quantity=older))
    assert verdicts("GATE050", given, policy(drift={"max_share_change": 1.0})) == {"pass"}
    assert verdicts("GATE016", evidence(manifest=manifest(quantity=older)), DEFAULT) == {"pass"}


def test_another_quantity_is_accepted_by_name_only() -> None:
    asked = {"config": {**manifest()["config"], "feature_perturbation": "correlation_dependent"}}
    named = {**manifest()["quantity"], "feature_perturbation": "correlation_dependent"}
    other = evidence(manifest=manifest(quantity=named, **asked))
    both = ["correlation_dependent", "interventional"]
    assert verdicts("GATE016", other, policy(require={"feature_perturbation": "correlation_dependent"})) == {
        "pass"
    }
    assert verdicts("GATE016", other, policy(require={"feature_perturbation": both})) == {"pass"}
    assert verdicts("GATE016", evidence(), policy(require={"feature_perturbation": both[:1]})) == {"fail"}
    for odd in (None, ["correlation_dependent"], "Interventional"):
        said = {**manifest()["quantity"], "feature_perturbation": odd}
        assert verdicts(
            "GATE016",
            evidence(manifest=manifest(quantity=said, config={"feature_perturbation": odd})),
            policy(require={"feature_perturbation": both}),
        ) == {"fail"}
    lies = evidence(manifest=manifest(**asked))  # what it says of itself is not what it was asked for
    assert verdicts("GATE016", lies, policy(require={"feature_perturbation": both})) == {"fail"}
    assert verdicts("GATE016", lies, DEFAULT) == {"fail"}


def test_what_drifts_most_stands_first() -> None:
    def sure(given: Evidence) -> dict[str, pd.DataFrame]:
        table = given.tables["importance"]
        exact = table.assign(share_ci_low=table["share"], share_ci_high=table["share"])
        return {**given.tables, "importance": exact}

    before = champion(tables=sure(share(0.4, 0.4, 0.4, feature="noise")))
    given = evidence(tables=sure(evidence()), champion=before)
    found = findings("GATE050", given, policy(drift={"max_share_change": 0.001}))
    sizes = [abs(f.evidence["value"]) for f in found if f.verdict == "fail"]
    assert found[0].evidence["feature"] == "noise"
    assert len(sizes) > 2
    assert sizes == sorted(sizes, reverse=True)


def test_two_snapshots_that_do_not_say_what_they_explain_are_not_compared() -> None:
    unsaid = {key: value for key, value in manifest()["quantity"].items() if key != "target"}
    given = evidence(manifest=manifest(quantity=unsaid), champion=champion(quantity=unsaid))
    assert verdicts("GATE050", given, policy(drift={"max_share_change": 1.0})) == {"undecided"}


def test_drift_of_a_version_without_importance_fails() -> None:
    now = without("importance")
    given = evidence(tables=now.tables, champion=champion())
    assert verdicts("GATE050", given, policy(drift={"max_share_change": 1.0})) == {"fail"}


def test_drift_from_nothing_or_from_itself_does_not_apply() -> None:
    asked = policy(drift={"max_share_change": 0.01})
    assert verdicts("GATE050", evidence(), asked) == {"not_applicable"}
    assert verdicts("GATE050", evidence(champion=champion(name="Mortgage", version="3")), asked) == {
        "not_applicable"
    }
    same = champion(snapshot_id=manifest()["snapshot_id"])
    assert verdicts("GATE050", evidence(champion=same), asked) == {"pass"}
    assert verdicts("GATE050", evidence(champion=champion()), DEFAULT) == {"not_applicable"}


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 0.98), st.floats(0.0, 0.5))
def test_a_looser_policy_never_refuses_what_a_tighter_one_passes(bound: float, more: float) -> None:
    for key, code in (("max_share", "GATE031"), ("max_total_share", "GATE032")):
        tight = verdicts(code, evidence(), asserting(features="*", **{key: bound}))
        loose = verdicts(code, evidence(), asserting(features="*", **{key: min(1.0, bound + more)}))
        assert min(map(RANK.__getitem__, loose)) >= min(map(RANK.__getitem__, tight))


def test_a_bound_is_told_as_it_is_written() -> None:
    close = policy(performance=[{"name": "roc_auc", "min": 0.9999}])
    assert "at least 0.9999 is required" in said("GATE021", evidence(), close)
    capped = policy(assertions=[{"features": ["*"], "max_share": 0.00125}])
    assert "at most 0.125% is allowed" in said("GATE031", evidence(), capped)
