import json

import numpy as np
import pandas as pd
import pytest
from segment_kit import linear, loan_frame

from explain_step.artifacts import performance, segment_rules, segment_search, segments
from explain_step.artifacts.proportions import Share, newcombe, share
from explain_step.artifacts.segment_rules import cut_column
from explain_step.config import Config
from explain_step.errors import InvalidInput, NotApplicable
from explain_step.intervals import wilson
from explain_step.seeds import Seeds

CONTRACT = [
    "segment", "level", "n", "metric", "metric_value", "metric_ci_low", "metric_ci_high", "output", "feature",
    "mean_abs_shap", "ci_low", "ci_high", "difference", "difference_ci_low", "difference_ci_high",
    "p_adjusted",
]  # fmt: skip
FEATURES = ["age", "income", "employed"]


def build(frame, y, *, config=None, **options):
    subject, attributions = linear(
        frame, y, **{"features": FEATURES, "weights": [0.02, 0.01, 1.0], **options}
    )
    section = segments.build(subject, attributions, config=Config.parse(config or {}), seeds=Seeds(0))
    return {a.name: a for a in section.artifacts}, section.caveats


def labels(frame, seed=1):
    r = np.random.default_rng(seed)
    score = 0.02 * frame["age"].fillna(0) + 0.01 * frame["income"] + frame["employed"] - 1.8
    return np.where(score + r.logistic(size=len(frame)) > 0, "yes", "no")


FRAME = loan_frame()
Y = labels(FRAME)


def test_contract_columns_and_strict_json_meta():
    made, _ = build(
        FRAME, Y, config={"segments": ["purpose", "age < 30", ["employed", "home owner"], "when", "age"]}
    )
    table = made["segments"].table
    assert set(CONTRACT) <= set(table.columns)
    for name, artifact in made.items():
        json.dumps(dict(artifact.meta), allow_nan=False)
        assert artifact.name == name
        assert artifact.kind == "segments"
        assert artifact.meta["quantity"]["output_space"] == "margin"
        assert "95%" in artifact.meta["interval"]
    assert table["n"].dtype == np.float64
    assert set(table["segment"]) == {
        "(all rows)", "purpose", "age < 30", "employed \u00d7 home owner", "when", "age",
    }  # fmt: skip
    assert set(table.loc[table["segment"] == "age", "level"]) >= {"(missing)"}


def test_means_differences_and_metric_equal_hand_computed():
    made, _ = build(FRAME, Y, config={"segments": ["purpose"], "metrics": ["accuracy"]})
    subject, attributions = linear(FRAME, Y, features=FEATURES, weights=[0.02, 0.01, 1.0])
    table = made["segments"].table
    inside = (FRAME["purpose"] == "car").to_numpy()
    row = table[(table["level"] == "car") & (table["feature"] == "income")].iloc[0]
    strength = np.abs(attributions.values[:, 1, 0])
    assert row["n"] == inside.sum()
    assert row["mean_abs_shap"] == pytest.approx(strength[inside].mean(), rel=1e-12)
    assert row["difference"] == pytest.approx(strength[inside].mean() - strength[~inside].mean(), rel=1e-9)
    right = subject.response.label == Y
    assert row["metric_value"] == pytest.approx(right[inside].mean())
    assert row["metric_difference"] == pytest.approx(right[inside].mean() - right[~inside].mean())
    assert (row["metric_ci_low"], row["metric_ci_high"]) == pytest.approx(
        wilson(right[inside].sum(), inside.sum())
    )


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy"])
def test_all_rows_have_one_interval_in_both_tables(metric):
    w = np.random.default_rng(0).uniform(0.1, 3, len(FRAME))
    config = Config.parse({"segments": ["purpose"], "metrics": [metric]})
    for weights in (None, w):
        subject, attributions = linear(
            FRAME, Y, features=FEATURES, weights=[0.02, 0.01, 1.0], sample_weight=weights
        )
        options = {"config": config, "seeds": Seeds(0)}
        whole = performance.build(subject, attributions, **options).artifacts[0].table.iloc[0]
        row = segments.build(subject, attributions, **options).artifacts[0].table.iloc[0]
        assert row["segment"] == "(all rows)"
        for ours, theirs in zip(
            ["metric_value", "metric_ci_low", "metric_ci_high"], ["value", "ci_low", "ci_high"], strict=True
        ):
            assert row[ours] == whole[theirs]


def test_sample_weights_change_means_as_they_should():
    w = np.random.default_rng(0).uniform(0.1, 3, len(FRAME))
    made, _ = build(FRAME, Y, config={"segments": ["purpose"], "metrics": ["accuracy"]}, sample_weight=w)
    subject, attributions = linear(FRAME, Y, features=FEATURES, weights=[0.02, 0.01, 1.0])
    inside = (FRAME["purpose"] == "car").to_numpy()
    table = made["segments"].table
    row = table[(table["level"] == "car") & (table["feature"] == "income")].iloc[0]
    strength = np.abs(attributions.values[:, 1, 0])
    assert row["mean_abs_shap"] == pytest.approx(np.average(strength[inside], weights=w[inside]))
    right = subject.response.label == Y
    assert row["metric_value"] == pytest.approx(np.average(right[inside], weights=w[inside]))
    assert row["n"] == inside.sum()


def test_a_real_difference_is_found_and_a_mirrored_cut_is_one_test():
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=300), "g": ["a", "b", "b"] * 100})
    frame.loc[frame["g"] == "a", "x"] *= 4
    y = frame["x"].to_numpy()
    made, _ = build(frame, y, task="regression", features=["x"], weights=[1.0], config={"segments": ["g"]})
    table = made["segments"].table.set_index("level")
    assert table.loc["a", "p_adjusted"] < 1e-6
    assert table.loc["a", "difference"] > 0
    assert table.loc["b", "difference"] == pytest.approx(-table.loc["a", "difference"])
    assert table.loc["b", "p_adjusted"] == table.loc["a", "p_adjusted"]
    assert made["segments"].meta["p_adjusted"].startswith("Holm over all 1 tested")


def test_withheld_levels_have_no_numbers():
    frame = FRAME.assign(rare=["x"] * 5 + ["y"] * 150 + ["z"] * (len(FRAME) - 155))
    made, caveats = build(frame, Y, config={"segments": ["rare"]})
    table = made["segments"].table.set_index("level")
    gone = table[table["withheld"].notna()]
    assert set(gone.index) == {"x", "y"}
    assert gone.select_dtypes("number").isna().all().all()
    assert gone["feature"].isna().all()
    assert table.loc["z", "n"].iloc[0] == len(FRAME) - 155
    assert "segments_withheld" in {c.code for c in caveats}
    rates = made["segment_rates"].table
    hidden = rates[rates["level"].isin(["x", "y"])]
    assert hidden[["value", "n", "difference"]].isna().all().all()


def test_empty_segment_is_a_caveat():
    made, caveats = build(FRAME, Y, config={"segments": ["age > 500"]})
    table = made["segments"].table
    assert [c.message for c in caveats if c.code == "empty_segment"] == [
        "Segment 'age > 500' selects no row."
    ]
    assert table.loc[table["withheld"] == "no rows", "n"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"segments": ["agee"]}, r"did you mean 'age'\?$"),
        ({"segments": [["age", "purpos"]]}, "did you mean 'purpose'"),
        ({"segments": [[]]}, "empty list"),
        ({"sensitive": ["gender"]}, "Option sensitive must name columns|no column 'gender'"),
        ({"segments": ["age.mean() > 3"]}, "position"),
    ],
)
def test_wrong_declarations_are_refused(config, wanted):
    with pytest.raises(InvalidInput, match=wanted):
        build(FRAME, Y, config=config)


def test_sensitive_columns_are_always_reported_and_marked():
    made, _ = build(FRAME, Y, config={"segments": ["age < 30"], "sensitive": ["home owner"]})
    table = made["segments"].table
    marked = table.groupby("segment")["sensitive"].any()
    assert marked.to_dict() == {"(all rows)": False, "age < 30": False, "home owner": True}


@pytest.mark.parametrize("declared", ["purpose == 'CANARY'", ["age", "purpose == 'CANARY'"]])
def test_an_expression_about_a_redacted_column_is_refused_without_its_value(declared):
    config = Config(segments=(declared,), redact=("purpose",))
    with pytest.raises(
        InvalidInput, match=r"must not compare a column listed in 'redact'.*reads 'purpose'"
    ) as caught:
        segment_rules.check(config, list(FRAME.columns))
    assert "CANARY" not in str(caught.value)
    segment_rules.check(Config(segments=("purpose", "age < 30"), redact=("purpose",)), list(FRAME.columns))


def test_redacted_segment_is_named_but_not_reported():
    made, caveats = build(FRAME, Y, config={"segments": ["purpose", "age < 30"], "redact": ["purpose"]})
    assert set(made["segments"].table["segment"]) == {"(all rows)", "age < 30"}
    assert "segment_redacted" in {c.code for c in caveats}


def test_without_declaration_columns_with_few_levels_and_a_search():
    made, _ = build(FRAME, Y)
    table = made["segments"].table
    assert set(table["segment"]) == {"(all rows)", "employed", "purpose", "home owner"}
    assert set(table["origin"]) == {"all", "found"}
    search = made["segment_search"].table
    assert list(search.columns[:2]) == ["rule", "n"]
    assert made["segment_search"].meta["search_rows"] + made["segment_search"].meta["report_rows"] == len(
        FRAME
    )


def test_search_finds_a_planted_weak_segment_and_reports_it_on_other_rows():
    r = np.random.default_rng(5)
    frame = loan_frame(1200, seed=5)
    bad = ((frame["purpose"] == "house") & (frame["income"] > 20)).to_numpy()
    y = frame["income"].to_numpy() + r.normal(size=len(frame)) * np.where(bad, 9.0, 1.0)
    options = {"task": "regression", "features": ["income", "age"], "weights": [1.0, 0.0]}
    made, _ = build(frame, y, **options)
    found = made["segment_search"].table.iloc[0]
    assert "purpose == 'house'" in found["rule"]
    assert "income" in found["rule"]
    assert found["p_adjusted"] < 0.01
    assert found["difference_ci_low"] > 0  # the error is larger inside
    # the rule can be declared as a segment as it is written
    again, _ = build(frame, y, **options, config={"segments": [found["rule"]]})
    shown = again["segments"].table
    assert shown.loc[shown["level"] == "yes", "n"].iloc[0] == found["n"] + found["n_search"]


def test_search_in_more_rows_than_it_needs_still_finds_the_weak_segment(monkeypatch):
    monkeypatch.setattr(segment_search, "MOST_ROWS", 400)
    r = np.random.default_rng(5)
    frame = loan_frame(6000, seed=5)
    bad = (frame["purpose"] == "house").to_numpy()
    y = frame["income"].to_numpy() + r.normal(size=len(frame)) * np.where(bad, 9.0, 1.0)
    made, _ = build(frame, y, task="regression", features=["income", "age"], weights=[1.0, 0.0])
    found = made["segment_search"].table.iloc[0]
    assert "purpose == 'house'" in found["rule"]
    assert 0 < found["n"] < 400
    assert 0 < found["n_search"] < 400


def test_search_does_not_depend_on_the_order_of_rows():
    order = np.random.default_rng(2).permutation(len(FRAME))
    ids = np.arange(len(FRAME)).astype(str)
    one, _ = build(FRAME, Y, row_ids=ids)
    other, _ = build(FRAME.iloc[order], Y[order], row_ids=ids[order])
    assert one["segment_search"].table["rule"].tolist() == other["segment_search"].table["rule"].tolist()
    assert one["segment_search"].table["n"].tolist() == other["segment_search"].table["n"].tolist()


def test_no_labels():
    made, caveats = build(FRAME, None)
    assert {c.code: c.degrades for c in caveats}["no_labels"]
    assert made["segments"].table["metric_value"].isna().all()
    assert made["segments"].table["mean_abs_shap"].notna().any()
    assert set(made["segment_rates"].table["rate"]) == {"selection_rate"}
    assert "segment_search" not in made


def test_one_class_in_a_segment_has_no_auc_and_no_error():
    y = np.where(FRAME["purpose"] == "car", "no", Y)
    made, _ = build(FRAME, y, config={"segments": ["purpose"]})
    row = made["segments"].table.set_index("level").loc["car"].iloc[0]
    assert np.isnan(row["metric_value"])
    assert np.isnan(row["metric_p_adjusted"])
    assert np.isfinite(row["mean_abs_shap"])


def test_multiclass_and_regression():
    r = np.random.default_rng(0)
    made, _ = build(
        FRAME, r.choice(["a", "b", "c"], len(FRAME)), task="multiclass", weights=r.normal(size=(3, 3)) / 40
    )
    assert set(made["segments"].table["output"].dropna()) == {"a", "b", "c"}
    assert set(made["segment_rates"].table["output"]) == {"a", "b", "c"}
    made, _ = build(FRAME, FRAME["income"].to_numpy(), task="regression")
    assert "segment_rates" not in made
    assert made["segments"].meta["metric"] == "rmse"


def test_few_explained_rows_keep_performance_only():
    made, caveats = build(FRAME, Y, rows=np.arange(30), config={"segments": ["purpose"]})
    table = made["segments"].table
    shown = table[(table["segment"] == "purpose") & table["withheld"].isna()]
    assert shown["metric_value"].notna().all()
    assert shown["mean_abs_shap"].isna().any()
    assert "segments_few_explained" in {c.code for c in caveats}


def test_rates_and_gap_equal_hand_computed():
    made, _ = build(FRAME, Y, config={"segments": ["home owner"]})
    subject, _ = linear(FRAME, Y, features=FEATURES, weights=[0.02, 0.01, 1.0])
    table = made["segment_rates"].table.set_index(["level", "rate"])
    owner = (FRAME["home owner"] == "yes").to_numpy()
    chosen, actual = subject.response.label == "yes", Y == "yes"
    inside, rest = share(chosen[owner & actual], None), share(chosen[~owner & actual], None)
    row = table.loc[("yes", "tpr")]
    assert row["value"] == pytest.approx(inside.value)
    assert row["difference"] == pytest.approx(inside.value - rest.value)
    assert (row["difference_ci_low"], row["difference_ci_high"]) == pytest.approx(newcombe(inside, rest))
    gap = table.loc[("(gap)", "tpr")]
    assert gap["value"] == pytest.approx(abs(inside.value - rest.value))
    assert {gap["high_level"], gap["low_level"]} == {"yes", "no"}


def test_newcombe_published_example():
    a, b = Share(value=56 / 70, size=70, n=70), Share(value=48 / 80, size=80, n=80)
    assert newcombe(a, b) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(
    ("series", "levels"),
    [
        (pd.Series([True, False] * 10), ("False", "True")),
        (pd.Series([0, 0, 0, 1, 2]), ("0", "1", "2")),
        (pd.Series([np.nan] * 5), ("(missing)",)),
        (pd.Series([5.0] * 5), ("5",)),
        (pd.Series(pd.Categorical(["lo", "hi"], categories=["lo", "hi"], ordered=True)), ("lo", "hi")),
        (pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01", None])), ("2020", "2021", "(missing)")),
        (pd.Series([0.0] * 90 + list(range(1, 11))), None),
    ],
)
def test_cutting_columns(series, levels):
    found, codes = cut_column(series, config=Config())
    assert levels is None or found == levels
    assert len(codes) == len(series)
    assert set(codes) == set(range(len(found)))


def test_bins_are_what_their_labels_say():
    values = pd.Series(np.random.default_rng(0).lognormal(size=500))
    found, codes = cut_column(values, config=Config())
    for level, name in enumerate(found):
        inside = values[codes == level]
        if name.startswith("below"):
            assert inside.max() < float(name.split()[1])
        elif name.endswith("more"):
            assert inside.min() >= float(name.split()[0])
        else:
            low, high = (float(v) for v in name.strip("[)").split(", "))
            assert inside.min() >= low
            assert inside.max() < high
        assert 90 < len(inside) < 160


def test_many_levels_are_pooled():
    found, _ = cut_column(pd.Series([f"v{i % 40:02d}" for i in range(400)]), config=Config())
    assert len(found) == 12
    assert found[-1] == "other levels"


@pytest.mark.parametrize("privacy", ["standard", "strict"])
def test_a_declared_segment_with_one_level_is_named_and_degrades(privacy):
    frame = FRAME.assign(product="loan", memo=[f"memo {i}" for i in range(len(FRAME))])
    names = ["product", "memo"] if privacy == "strict" else ["product"]  # rare levels are one level there
    _, caveats = build(frame, Y, config={"segments": [*names, "purpose"], "privacy": privacy})
    found = [c for c in caveats if c.code == "segment_uncut"]
    assert [name for name in names if any(repr(name) in c.message for c in found)] == names
    assert len(found) == len(names)
    assert all(c.degrades for c in found)


def test_nothing_to_cut_by():
    frame = pd.DataFrame({"x": [1.0] * 50})
    made, caveats = build(frame, ["no", "yes"] * 25, features=["x"], weights=[1.0])
    assert list(made) == ["segments"]
    assert set(made["segments"].table["segment"]) == {"(all rows)"}
    (said,) = [c for c in caveats if c.code == "no_segment"]
    assert said.degrades
    assert "no column cuts the 50 rows into groups of at least 20. Name one" in said.message
    with pytest.raises(NotApplicable, match="redact"):
        build(FRAME, Y, config={"segments": ["purpose"], "redact": ["purpose"]})


def test_too_few_rows_for_two_groups_are_said_to_be_too_few():
    made, caveats = build(FRAME.head(39), Y[:39])
    table = made["segments"].table
    assert (set(table["segment"]), set(table["n"])) == ({"(all rows)"}, {39.0})
    assert table["mean_abs_shap"].notna().all()
    assert [c.message for c in caveats if c.code == "no_segment"] == [
        "No segment is reported: two groups of at least 20 rows need 40 rows, and there are 39. Explain more rows, or "
        "lower 'min_segment'."
    ]


def test_few_rows_are_cut_by_the_output():
    made, _ = build(FRAME.head(50)[["income"]], Y[:50], features=["income"], weights=[1.0])
    assert "model output (yes)" in set(made["segments"].table["segment"])


def test_inputs_and_global_rng_stay_unchanged():
    before, state = FRAME.copy(deep=True), np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator is the point
    build(FRAME, Y)
    pd.testing.assert_frame_equal(FRAME, before)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_same_input_same_numbers():
    one, _ = build(FRAME, Y)
    two, _ = build(FRAME, Y)
    for name in one:
        pd.testing.assert_frame_equal(one[name].table, two[name].table)


def test_a_level_with_one_class_is_named_and_degrades_where_it_was_asked_for():
    part = FRAME.assign(side=np.where((Y == "yes") & (np.arange(len(FRAME)) % 2 == 0), "left", "right"))
    (said,) = [c for c in build(part, Y, config={"segments": ["side"]})[1] if "metric_undefined" in c.code]
    assert said.degrades
    assert (
        "roc_auc is not defined in segment 'side: left': all labels are equal; give rows of every class"
        in (said.message)
    )


def test_a_level_without_weight_costs_no_section():
    weights = np.where(FRAME["purpose"] == FRAME["purpose"].iloc[0], 0.0, 1.0)
    for metric in ("accuracy", "log_loss", "balanced_accuracy", "f1", "roc_auc"):
        made, caveats = build(
            FRAME, Y, config={"segments": ["purpose"], "metrics": [metric]}, sample_weight=weights
        )
        (said,) = [c for c in caveats if c.code == "segment_metric_undefined"]
        assert "no row has a positive weight" in said.message, metric
        table = made["segments"].table
        blank = table.loc[table["level"] == str(FRAME["purpose"].iloc[0]), "metric_value"]
        assert blank.isna().all()
        assert table.loc[table["level"] == "(all)", "metric_value"].notna().all()
