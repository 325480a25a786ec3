"""Findings say what the tables say, and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from page_fixture import degraded, multiclass, normal, regression
from page_tables import (
    CONTROL,
    QUANTITY,
    RANKS,
    artifact,
    dependence_table,
    examples_table,
    importance_table,
    score,
    segments_table,
)

from explain_step.report import dependence, examples, importance, quality, segments, sentences
from explain_step.report.format import Text, number, plain
from explain_step.report.limits import limits
from explain_step.report.tables import Labels
from explain_step.report.view import key_numbers, view

NONE = Labels()
NAN = float("nan")


def text(found: tuple[Text, ...] | list[Text]) -> str:
    return " ".join(plain(sentence) for sentence in found)


def test_the_sentence_for_a_judge():
    assert plain(sentences.aloud(QUANTITY)) == (
        "This page explains the predicted probability of deny = yes for 714 held-out rows, "
        "against 1,666 background rows given by the caller, exactly."
    )


def test_the_sentence_says_when_it_is_a_sample_and_how_close_the_estimate_is():
    spoken = plain(sentences.aloud({**QUANTITY, "exact": False, "typical_error": 0.00213, "rows": 200}))
    assert "for 200 of 714 held-out rows" in spoken
    assert spoken.endswith("estimated by sampling, typically to within \u00b10.0021.")
    assert plain(sentences.aloud({**QUANTITY, "exact": False})).endswith("estimated by sampling.")


def test_the_sentence_of_several_outputs_names_none_of_them():
    assert "of each of the three classes of species for" in plain(sentences.aloud(multiclass().quantity))
    targets = {**QUANTITY, "outputs": ["a", "b"], "output_space": "prediction", "phrase": "prediction of a"}
    assert "the prediction of each of the two targets for" in plain(sentences.aloud(targets))
    quantiles = {
        "outputs": ["low", "high"],
        "output_space": "prediction",
        "phrase": "prediction of price: low",
    }
    told = "the prediction of price in two numbers (low, high) for"
    assert told in plain(sentences.aloud({**QUANTITY, **quantiles}))


def ranked(ranks: list[tuple[int, int]]) -> pd.DataFrame:
    names = tuple("abcdefgh"[: len(ranks)])
    return importance_table(names, ranks=ranks)


@pytest.mark.parametrize(
    ("ranks", "finding"),
    [
        ([(1, 1), (2, 2), (3, 3)], "a and b lead, in this order; every rank is settled."),
        (
            [(1, 1), (2, 2), (3, 6), (3, 6), (3, 6), (3, 6)],
            "a and b lead, in this order; the order of ranks 3 to 6 is not settled.",
        ),
        ([(1, 1), (2, 3), (2, 3)], "a leads; the order of ranks 2 and 3 is not settled."),
        ([(1, 2), (1, 2), (3, 3)], "a and b lead, in an order that is not settled."),
        (
            [(1, 2), (1, 3), (2, 4), (3, 4)],
            "a, b and c come first, but the order of ranks 1 to 4 is not settled.",
        ),
        (
            [(1, 2), (1, 2), (3, 4), (3, 4)],
            "a and b lead, in an order that is not settled; neither is that of ranks 3 and 4.",
        ),
    ],
)
def test_leaders_and_unsettled_ranks(ranks, finding):
    assert text(importance.finding(ranked(ranks), labels=NONE)).startswith(finding)


def test_unknown_ranks_are_not_called_settled():
    table = ranked([(1, 1), (2, 2), (3, 3)]).assign(rank_low=NAN, rank_high=NAN)
    assert "settled." in text(importance.finding(table, labels=NONE))
    assert "every rank is settled" not in text(importance.finding(table, labels=NONE))


def test_inputs_without_effect_are_counted_and_all_zero_is_said():
    assert "One input has no effect on these rows: condomin." in text(
        importance.finding(importance_table(), labels=NONE)
    )
    nothing = importance_table(("a", "b")).assign(mean_abs_shap=0.0)
    assert (
        text(importance.finding(nothing, labels=NONE)) == "No input changes the output on any of these rows."
    )


def test_shuffling_that_disagrees_is_said():
    table = importance_table(("a", "b")).assign(permutation_importance=[0.01, 0.02])
    assert "when an input is shuffled, b comes first" in text(importance.finding(table, labels=NONE))


def test_reader_names_are_used():
    found = text(
        importance.finding(importance_table(("a", "b")), labels=Labels(names={"a": "loan to value"}))
    )
    assert found.startswith("loan to value")


def test_the_share_of_three_is_the_sum_of_the_table_and_lies_in_its_bounds():
    table = importance_table()
    share, low, high, names = importance.shares(table)
    assert share == pytest.approx(table["share"].nlargest(3).sum())
    assert names == ("lvrat", "pirat", "chist")
    assert low < share < high


def test_several_outputs_speak_by_their_mean_and_name_each_leader():
    table = multiclass().artifacts["importance"].table
    settled = table.assign(rank_low=np.nan, rank_high=np.nan)
    for _, part in settled.groupby("output"):
        order = part["mean_abs_shap"].rank(ascending=False, method="first")
        settled.loc[part.index, ["rank_low", "rank_high"]] = np.stack([order, order], axis=1)
    found = text(importance.finding(settled, labels=NONE))
    assert "For setosa, lvrat leads; for versicolor, pirat leads; for virginica, chist leads." in found


def test_an_output_whose_leaders_are_tied_has_no_leader():
    table = multiclass().artifacts["importance"].table
    setosa = table[table["output"] == "setosa"].nlargest(5, "mean_abs_shap").index
    two = table.copy()
    two.loc[two["output"] == "setosa", ["rank_low", "rank_high"]] = [[9.0, 9.0]]
    two.loc[setosa[:2], ["rank_low", "rank_high"]] = [[1.0, 2.0]]
    assert "For setosa, lvrat and pirat lead together" in text(importance.finding(two, labels=NONE))
    five = two.copy()
    five.loc[setosa, ["rank_low", "rank_high"]] = [[1.0, 5.0]]
    assert "For setosa, the first five cannot be told apart" in text(importance.finding(five, labels=NONE))


def test_shuffling_some_of_the_inputs_names_no_costliest():
    table = importance_table(("a", "b")).assign(permutation_importance=[0.02, NAN])
    assert "huffl" not in text(importance.finding(table, labels=NONE))


def test_a_pair_that_is_named_stands_out_and_the_wider_one_before_it_is_not_hidden():
    pairs = pd.DataFrame(
        {
            "output": "yes", "feature_a": ["a", "a"], "feature_b": ["b", "c"],
            "strength": [0.3, 0.2], "ci_low": [0.0, 0.1], "ci_high": [0.6, 0.3],
        }
    )  # fmt: skip
    found = text(dependence.interactions(pairs, labels=NONE))
    assert found == "The strongest interaction that stands out from chance is between a and c."
    assert text(dependence.interactions(pairs.assign(ci_low=0.1), labels=NONE)) == (
        "The strongest interaction is between a and b."
    )
    assert "No interaction" in text(dependence.interactions(pairs.assign(ci_low=0.0), labels=NONE))


def test_the_course_of_curves():
    found = text(dependence.section(normal(), labels=NONE).finding)
    assert found.startswith(
        "Contributions rise with lvrat, pirat and phist; they go up and down along chist; and they"
    )
    assert "differ between the levels of afam" in found
    assert "Along lvrat they go from \u22120.114 at 0.2 to +0.109 at 1.3." in found


def test_a_level_of_too_few_rows_for_an_interval_is_not_called_the_lowest():
    """One married spouse in the armed forces among 625 people was the headline."""
    table = pd.DataFrame({"output": "yes", "feature": "status", "curve": "shap", "x": list("abc")})
    table = table.assign(level=list("abc"), value=[0.1, -0.1, -0.2], ci_low=[0.0, -0.2, np.nan])
    table = table.assign(ci_high=table["ci_low"] + 0.2, count=[300.0, 300.0, 1.0])
    found = text(dependence.sentences(table, order=["status"], labels=NONE))
    assert "lowest at b (\u22120.100) and highest at a (+0.100)" in found
    sparse = table.assign(ci_low=np.nan, ci_high=np.nan)
    assert "lowest at c" in text(dependence.sentences(sparse, order=["status"], labels=NONE))


@pytest.mark.parametrize(
    ("values", "course"),
    [
        ([0, 1, 2], "rises"),
        ([2, 1, 1], "falls"),
        ([0, 3, 2.5], "mostly rises"),
        ([0, 1, 0], "turns"),
        ([1, 1, 1], "flat"),
    ],
)
def test_one_curve(values, course):
    curve = pd.DataFrame(
        {"x": ["3", "1", "2"], "value": np.array(values, dtype=float)[[2, 0, 1]], "shown": "x"}
    )
    assert dependence.course(curve) == course


def test_missing_values_stand_off_the_curve():
    curve = pd.DataFrame(
        {"x": [1.0, 2.0, 3.0], "value": [0.1, 0.2, -5.0], "level": [None, None, "(missing)"]}
    )
    assert dependence.course(curve) == "rises"


def test_an_interaction_that_may_be_nothing_is_not_named():
    pairs = pd.DataFrame(
        {
            "output": "y",
            "feature_a": ["a"],
            "feature_b": ["b"],
            "strength": [0.1],
            "ci_low": [0.0],
            "ci_high": [0.3],
        }
    )
    assert (
        text(dependence.interactions(pairs, labels=NONE))
        == "No interaction between two inputs stands out from chance."
    )
    assert "between a and b" in text(dependence.interactions(pairs.assign(ci_low=0.05), labels=NONE))


def pairs_of(**strongest):
    """Interactions of several outputs: of each the pair that stands out, or None."""
    rows = [
        {
            "output": output,
            "feature_a": pair[0],
            "feature_b": pair[1],
            "strength": 0.1 if pair != ("u", "v") else 0.01,
            "ci_low": 0.05 if wanted else 0.0,
            "ci_high": 0.2,
        }
        for output, wanted in strongest.items()
        for pair in (("u", "v"), wanted or ("a", "c"))
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("strongest", "said"),
    [
        (
            {"x": ("a", "b"), "y": ("a", "b"), "z": ("a", "b")},
            "The strongest interaction is between a and b for all three outputs.",
        ),
        (
            {"x": ("a", "b"), "y": ("a", "c"), "z": None},
            "The strongest interaction is between a and b for x, between a and c for y; "
            "for z none stands out from chance.",
        ),
        ({"x": None, "y": None}, "No interaction between two inputs stands out from chance."),
        ({f"o{k}": ("a", "b") for k in range(6)}, "between a and b for o0, o1, o2 and o3."),
    ],
)
def test_the_strongest_pair_of_each_output(strongest, said):
    assert text(dependence.interactions(pairs_of(**strongest), labels=NONE)).endswith(said)


def test_the_course_of_several_outputs():
    made = multiclass().artifacts["dependence"]
    table = made.table.copy()
    flip = (table["output"] == "virginica") & (table["feature"] == "lvrat")
    table.loc[flip, "value"] *= -1
    found = text(dependence.sentences(table, order=["lvrat", "pirat", "chist"], labels=NONE))
    assert found == (
        "Along lvrat contributions rise for setosa and versicolor and fall for virginica. "
        "Along pirat contributions rise for all three outputs. "
        "Along chist contributions go up and down for all three outputs."
    )


def test_many_outputs_are_not_all_described():
    table = pd.concat([dependence_table(output=f"o{k}") for k in range(6)])
    found = text(dependence.sentences(table, order=["lvrat"], labels=NONE))
    assert found.startswith("Along lvrat contributions rise for o0, o1, o2 and o3.")
    assert found.endswith("2 more outputs in the table.")


def test_tables_of_curves_say_which_output():
    shown = dependence.tables(multiclass().artifacts["dependence"], order=["lvrat"], labels=NONE)
    assert [plain(t.caption) for t in shown[:3]] == ["lvrat, setosa", "lvrat, versicolor", "lvrat, virginica"]
    (one, *_) = dependence.tables(normal().artifacts["dependence"], order=["lvrat"], labels=NONE)
    assert plain(one.caption) == "lvrat"


def test_groups_are_compared_without_the_whole_and_without_the_withheld():
    found = text(segments.performance_sentences(segments_table(), labels=NONE))
    assert found == (
        "ROC AUC runs from 0.771 (afam = yes, 108 rows) to 0.853 (single = no, 431 rows) over 4 groups; "
        "no difference in it stands out from chance."
    )


def test_of_many_groups_that_stand_out_the_one_that_differs_most_is_named_and_not_the_surest():
    table = segments_table()
    single = table["segment"] == "single"
    surest = table.assign(
        metric_p_adjusted=np.where(single, 0.0002, 0.01), metric_difference=np.where(single, 0.01, -0.07)
    )
    surest.loc[table["segment"] == "(all rows)", ["metric_p_adjusted", "metric_difference"]] = np.nan
    found = text(segments.performance_sentences(surest, labels=NONE))
    assert found.endswith("over 4 groups; it stands out in 4 of them, most in afam = no.")
    one = surest.assign(metric_p_adjusted=surest["metric_p_adjusted"].mask(table["level"] != "yes", 0.5))
    one["metric_p_adjusted"] = one["metric_p_adjusted"].mask(~single, 0.5)
    assert text(segments.performance_sentences(one, labels=NONE)).endswith("it stands out in single = yes.")


def test_averages_that_are_rounding_errors_are_shown_as_zero():
    made = normal().artifacts["importance"]
    table = made.table.assign(mean_shap=made.table["mean_shap"] * 1e-17)
    (shown, *_) = importance.tables(replace(made, table=table), labels=NONE)
    assert "10⁻" not in repr(shown.rows)


def test_both_sides_of_a_cut_are_one_difference():
    found = text(segments.importance_sentences(segments_table(), labels=NONE))
    assert found.startswith(
        "Four of the 8 differences in importance stand out after adjustment; the largest: lvrat"
    )
    assert "weighs more in afam = yes" in found


def test_the_gap_of_decisions():
    rates = normal().artifacts["segment_rates"].table
    assert text(segments.rate_sentences(rates, labels=NONE)) == (
        "Rows are predicted yes more often by 17 points (12 to 22) for afam = yes than for afam = no."
    )
    unsure = rates.assign(ci_low=0.0)
    assert "stands out from chance" in text(segments.rate_sentences(unsure, labels=NONE))


def test_without_labels_groups_have_no_performance():
    assert segments.performance_sentences(segments_table(labelled=False), labels=NONE) == []


def test_examples_are_counted_by_kind():
    assert text(examples.sentences(normal().artifacts["examples"].table)) == (
        "Six predictions are shown, chosen by rule and not by hand: two correct ones, one incorrect one, "
        "one borderline one, one with the largest error and one typical one."
    )


def test_a_score_stands_beside_its_own_control_only():
    pairs = quality.pair(normal().scores)
    control = {(p.score.name, p.score.variant): p.control.value if p.control else None for p in pairs}
    assert control["masking_r2", "interventional"] == -0.93
    assert control["rank_stability", "top5"] == 0.12
    assert control["rank_stability", "kendall_tau_b"] is None
    assert all(p.score.variant != CONTROL for p in pairs)


def test_a_score_no_better_than_chance_is_not_ahead():
    scores = (
        score("masking_r2", "interventional", 0.2, 0.1, 0.3, "higher"),
        score("masking_r2", CONTROL, 0.15, 0.1, 0.2, "higher"),
        score("additivity_error", "mean", 0.1, 0.05, 0.2, "lower"),
        score("additivity_error", CONTROL, 0.7, 0.6, 0.8, "lower"),
    )
    assert "One of two scores with a random control is clearly ahead of it." in text(
        quality.sentences(quality.pair(scores))
    )


def test_a_score_that_is_not_defined_gives_its_reason():
    undefined = (
        score("masking_r2", "", None, None, None, "higher", reason="a single column has no proper subset"),
    )
    assert text(quality.fidelity_sentences(quality.pair(undefined)[0])).endswith(
        "a single column has no proper subset."
    )
    numbers = key_numbers(replace(normal(), scores=undefined), labels=NONE)
    assert numbers[1].value == "\u2013"
    assert "a single column has no proper subset" in plain(numbers[1].note)


def test_the_three_numbers_are_those_of_the_tables():
    performance, fidelity, top = key_numbers(normal(), labels=NONE)
    assert (performance.label, performance.value, performance.interval) == (
        "ROC AUC",
        "0.837",
        "0.796 to 0.875",
    )
    assert (fidelity.value, fidelity.interval) == ("0.874", "0.851 to 0.893")
    assert (top.value, top.interval) == ("54%", "51% to 56%")
    assert key_numbers(regression(), labels=NONE)[0].value == "48,300"


def titles(context) -> dict[str, str]:
    found = limits(
        quantity=context.quantity,
        identity=context.identity,
        artifacts=context.artifacts,
        codes=frozenset(c.code for c in context.caveats),
        missing={},
        labels=NONE,
    )
    return {limit.title: plain(limit.body) for limit in found}


def test_limits_follow_from_the_facts():
    usual = titles(normal())
    assert {"Causes.", "Other data.", "Held-out rows.", "Another training.", "Another background."} <= set(
        usual
    )
    assert "pirat and hirat" in usual["Correlated inputs."]
    assert "afam, single and pirat > 0.4" in usual["Fairness."]
    assert not {"Stored model.", "Exact values.", "The other rows.", "Performance."} & set(usual)


def test_limits_of_an_estimate_without_labels_or_binding():
    few = titles(degraded())
    assert "\u00b10.0021" in few["Exact values."]
    assert few["The other rows."] == "514 of the 714 rows given were not explained."
    assert "not measured" in few["Performance."]
    assert "could not be loaded safely" in few["Stored model."]


def test_no_groups_is_said():
    context = normal()
    kept = {k: v for k, v in context.artifacts.items() if k != "segments"}
    assert "No groups of rows were compared" in titles(replace(context, artifacts=kept))["Fairness."]


def test_ranks_of_the_fixture_are_the_contract():
    assert len(RANKS) == len(importance_table())
    assert artifact("x", importance_table()).meta["quantity"]["rows"] == 714


@pytest.mark.parametrize(
    ("segment", "level", "name"),
    [
        ("afam", "yes", "afam = yes"),
        ("income", "below 20", "income below 20"),
        ("income", "[20, 40)", "income from 20 to below 40"),
        ("income", "40 or more", "income 40 or more"),
        ("age < 30", "yes", "age < 30"),
        ("age < 30", "no", "not age < 30"),
    ],
)
def test_groups_are_named_as_one_would_say_them(segment, level, name):
    assert plain(segments.segment_name({"segment": segment, "level": level}, labels=NONE)) == name


def test_a_row_with_two_outputs_has_a_table_for_each():
    base = normal().artifacts["examples"].table
    first = base[base["example"] == 0]
    both = pd.concat([first, first.assign(output="no", prediction=0.4)], ignore_index=True)
    shown = artifact("examples", both)
    assert [plain(t.caption) for t in examples.contributions(shown, labels=NONE)] == [
        "Row 17 (correct), yes",
        "Row 17 (correct), no",
    ]
    overview = examples.overview(shown, labels=NONE)
    assert [c.title for c in overview.columns][-2:] == ["Output of", "Output"]
    assert [plain(row[-1]) for row in overview.rows] == [number(float(first["prediction"].iloc[0])), "0.400"]


def test_a_picture_does_not_say_its_caption_again():
    one = replace(normal().figures[0], title="Bars by group", alt="Bars by group. All rows: 0.8.")
    (picture,) = view(replace(normal(), figures=(one,))).pictures["importance"]
    assert (picture.caption, picture.alt) == ("Bars by group", "All rows: 0.8.")
    (same,) = view(replace(normal(), figures=(replace(one, alt="Bars by group"),))).pictures["importance"]
    assert same.alt == "Bars by group"


def test_amounts_of_examples_are_rounded_in_their_table():
    made = examples_table().assign(y_true="169598.25", y_pred="162713")
    amounts = artifact("examples", made)
    amounts = replace(amounts, meta={"quantity": {**QUANTITY, "output_space": "prediction"}})
    rows = examples.overview(amounts, labels=NONE).rows
    assert [plain(cell) for cell in rows[0][2:4]] == ["170,000", "163,000"]
    classes = examples.overview(artifact("examples", made.assign(y_pred="2008")), labels=NONE).rows
    assert plain(classes[0][3]) == "2008"


@pytest.mark.parametrize(("level", "parts"), [("yes", 1), ("y" * 60, 3)])
def test_long_groups_are_shortened_name_and_level_apart(level, parts):
    found = segments.segment_name({"segment": "purpose", "level": level}, labels=NONE)
    assert len(found) == parts
    assert plain(found) == f"purpose = {level}"


def test_groups_that_perform_alike_have_no_range():
    table = segments_table().assign(metric_value=0.9, metric_p_adjusted=1.0)
    found = text(segments.performance_sentences(table, labels=NONE))
    assert "is 0.900 in each of" in found
    assert "runs from" not in found
