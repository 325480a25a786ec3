from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from effect_kit import additive_case, attributions_of, model_of, normal_frame, subject_of

from explain_step import intervals
from explain_step.artifacts import clusters, importance, noise_correction, permutation_importance
from explain_step.config import Config
from explain_step.errors import InvalidInput, NotApplicable, PredictionFailed
from explain_step.metrics import choose_metrics
from explain_step.seeds import Seeds
from explain_step.types import Response

SEEDS = Seeds(0)


def section(subject, attributions, **options):
    return importance.build(subject, attributions, config=Config.parse(options), seeds=SEEDS)


def tables(subject, attributions, **options):
    return {a.name: a.table for a in section(subject, attributions, **options).artifacts}


def linear_case(n=300, **more):
    X = normal_frame(n, 4)
    parts = {"x0": lambda s: 3 * s, "x1": lambda s: s, "x2": lambda s: -s}
    subject, _ = additive_case(X, parts)
    if "y" not in more:
        more["y"] = subject.response.output[:, 0]
    return additive_case(X, parts, **more)


def test_columns_of_the_contract_and_the_numbers_behind_them():
    subject, attributions = linear_case()
    table = tables(subject, attributions)["importance"]
    contract = ["output", "feature", "mean_abs_shap", "ci_low", "ci_high", "rank", "rank_low", "rank_high"]
    contract += ["mean_shap", "share", "permutation_importance", "permutation_ci_low", "permutation_ci_high"]
    assert set(contract) <= set(table.columns)
    expected = pd.Series(np.abs(attributions.values[:, :, 0]).mean(axis=0), index=subject.X.columns)
    shown = table.set_index("feature")
    np.testing.assert_allclose(shown["mean_abs_shap"], expected[shown.index])
    assert shown["share"].sum() == pytest.approx(1)
    assert (shown["ci_low"] <= shown["mean_abs_shap"]).all()
    assert (shown["ci_high"] >= shown["mean_abs_shap"]).all()
    assert (shown["share_ci_low"] <= shown["share"]).all()
    assert list(table["mean_abs_shap"]) == sorted(table["mean_abs_shap"], reverse=True)


def test_leading_features_have_their_share_together_with_an_interval_of_its_own():
    subject, attributions = linear_case()
    shown = tables(subject, attributions)["importance"]
    np.testing.assert_allclose(shown["cumulative_share"], shown["share"].cumsum())
    assert (shown["cumulative_ci_low"] <= shown["cumulative_share"] + 1e-12).all()
    assert (shown["cumulative_share"] <= shown["cumulative_ci_high"] + 1e-12).all()
    width = (shown["cumulative_ci_high"] - shown["cumulative_ci_low"]).to_numpy()
    sums = (shown["share_ci_high"] - shown["share_ci_low"]).cumsum().to_numpy()
    # the sum's interval is narrower than the sum of intervals: what one gains another loses
    assert width[1] < sums[1]
    assert width[3] < 1e-9


def test_the_share_of_the_first_three_is_covered():
    size = np.array([1, 0.8, 0.6, 0.3, 0.2, 0.1])
    hits = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        rows = np.abs(rng.normal(size=(100, 6))) * size
        found = importance._summary(
            noise_correction.Sizes(rows=rows[:, :, None], ceiling=None), weights=None, rng=rng
        ).nlargest(3, "mean_abs_shap")
        hits += (
            found["cumulative_ci_low"].iloc[2]
            <= size[:3].sum() / size.sum()
            <= found["cumulative_ci_high"].iloc[2]
        )
    assert 0.89 <= hits / 150 <= 0.99


def test_direction_is_the_sign_of_the_effect_and_absent_for_levels():
    X = normal_frame(100, 2).assign(kind=["a", "b"] * 50)
    subject, attributions = additive_case(X, {"x0": np.exp, "x1": lambda s: -s, "kind": lambda s: s == "a"})
    shown = tables(subject, attributions)["importance"].set_index("feature")["value_correlation"]
    assert shown["x0"] == pytest.approx(1)
    assert shown["x1"] == pytest.approx(-1)
    assert np.isnan(shown["kind"])


def test_direction_takes_attributions_that_only_rounding_tells_apart_for_equal():
    """Of trees, rows of one leaf have equal values; two engines differed by 0.002 in what they made of the last bits."""
    X = normal_frame(100, 2)
    subject, attributions = additive_case(X, {"x0": lambda s: (s > 0) * 0.3 - 0.1, "x1": lambda s: s})
    noise = np.random.default_rng(0).normal(scale=1e-16, size=attributions.values.shape)
    exact, noisy = (
        tables(subject, replace(attributions, values=attributions.values + part))["importance"]
        for part in (0 * noise, noise)
    )
    np.testing.assert_array_equal(noisy["value_correlation"], exact["value_correlation"])


def test_weights_change_the_mean_as_repeated_rows_would():
    X = normal_frame(40, 2)
    weights = np.r_[np.full(20, 3.0), np.ones(20)]
    subject, attributions = additive_case(X, {"x0": lambda s: s, "x1": lambda s: s**2}, weights=weights)
    shown = tables(subject, attributions)["importance"].set_index("feature")
    phi = np.abs(attributions.values[:, :, 0])
    repeated = np.r_[np.repeat(phi[:20], 3, axis=0), phi[20:]].mean(axis=0)
    np.testing.assert_allclose(shown.loc[["x0", "x1"], "mean_abs_shap"], repeated)


def test_features_that_cannot_be_told_apart_share_a_rank():
    X = normal_frame(200, 3)
    phi = np.stack([np.full(200, 5.0), X["x1"], X["x1"].to_numpy()[::-1]], axis=1) + 0.01 * X.to_numpy()
    subject = subject_of(model_of(lambda f: np.zeros(len(f)), X), X)
    shown = tables(subject, attributions_of(subject, phi))["importance"].set_index("feature")
    assert shown.loc["x0", ["rank", "rank_low", "rank_high"]].tolist() == [1, 1, 1]
    assert shown.loc["x1", ["rank", "rank_high"]].tolist() == [2, 3]
    assert shown.loc["x2", ["rank", "rank_high"]].tolist() == [2, 3]
    caveats = section(subject, attributions_of(subject, phi)).caveats
    assert any(c.code == "tied_ranks" and "'x1'" in c.message and "'x0'" not in c.message for c in caveats)


def test_ranks_of_wide_data_are_wider_but_never_wrong(monkeypatch):
    rng = np.random.default_rng(3)
    size = np.abs(rng.normal(size=(150, 30))) * 10 * 0.8 ** np.arange(30)
    low, high = intervals.rank_interval(size)
    monkeypatch.setattr(importance, "FULL_RANKS", 8)
    block_low, block_high = importance.rank_bounds(size, weights=None)
    true = np.arange(1, 31)
    assert (block_low <= true).all()
    assert (block_high >= true).all()
    assert (block_low[:8] <= high[:8]).all()
    assert (block_high[8:] == 30).all()
    assert block_high[0] < 30
    assert low[0] == block_low[0] == 1


def test_an_unused_column_has_permutation_importance_of_exactly_zero():
    subject, attributions = linear_case()
    shown = tables(subject, attributions)["importance"].set_index("feature")
    columns = ["permutation_importance", "permutation_ci_low", "permutation_ci_high"]
    assert shown.loc["x3", columns].tolist() == [0, 0, 0]


def test_permutation_importance_is_positive_for_a_metric_where_lower_is_better():
    subject, attributions = linear_case()
    result = section(subject, attributions, metrics="rmse")
    shown = result.artifacts[0].table.set_index("feature")
    assert result.artifacts[0].meta["permutation"]["metric"] == "rmse"
    # shuffling x0 adds 3 * (difference of two independent standard normals) to a perfect prediction
    assert shown.loc["x0", "permutation_importance"] == pytest.approx(3 * np.sqrt(2), rel=0.15)
    assert shown.loc["x0", "permutation_ci_low"] > 0
    assert shown.loc["x0", "permutation_importance"] > shown.loc["x1", "permutation_importance"] > 0


def test_permutation_importance_of_one_column_does_not_depend_on_the_others():
    subject, _ = linear_case()
    order = np.arange(4)
    first = permutation_importance.permutation_importance(subject, config=Config(), seeds=SEEDS, order=order)
    last = permutation_importance.permutation_importance(
        subject, config=Config(), seeds=SEEDS, order=order[::-1]
    )
    np.testing.assert_array_equal(first.value, last.value)
    np.testing.assert_array_equal(first.high, last.high)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, True, "1", 1.0, None, np.nan] * 10, dtype=object),
        pd.Series([[1], [1], [2]] * 20, dtype=object),
        pd.Series(["a", "b", None] * 20, dtype="category"),
        pd.Series(["a", "b", None] * 20),
        pd.Series([0.5, np.nan, np.inf] * 20),
        pd.Series([1, 2, None] * 20, dtype="Int64"),
        pd.Series(np.arange(60)),
        pd.Series(np.zeros(60)),
    ],
    ids=["mixed", "lists", "category", "text", "float", "nullable", "distinct", "constant"],
)
def test_shuffled_rows_get_the_models_answer_and_none_is_asked_about_twice(column):
    X = pd.DataFrame({"x0": column, "x1": np.arange(60.0)})
    asked = []

    def answer(frame):
        asked.extend(zip(map(repr, frame["x0"]), frame["x1"], strict=True))
        return np.array([len(repr(v)) + sum(map(ord, repr(v))) for v in frame["x0"]]) + frame["x1"] / 64

    subject = subject_of(model_of(answer, X), X, y=np.arange(60.0))
    asked.clear()
    shuffles = np.stack([np.random.default_rng(i).permutation(60) for i in range(5)])
    (metric,) = choose_metrics(("mae",), subject.model, subject.response)
    shuffled = permutation_importance._shuffles_of(subject, "x0", shuffles=shuffles)
    found = permutation_importance._response(subject, shuffled, metric=metric)
    wanted = [answer(X.assign(x0=column.take(rows).array)) for rows in shuffles]
    np.testing.assert_array_equal(found.output[:, 0], np.concatenate(wanted))
    first_call = asked[: len(asked) - 300]
    if not isinstance(column[0], list):
        own = set(zip(map(repr, X["x0"]), X["x1"], strict=True))
        assert len(first_call) == len(set(first_call))
        assert not own & set(first_call)


def test_the_permutation_interval_covers_the_expected_loss():
    # a perfect linear model: shuffling adds 3 (x - x') to it, whose mean size is 6 / sqrt(pi)
    covered = 0
    for seed in range(50):
        X = normal_frame(150, 2, seed=seed)
        y = 3 * X["x0"].to_numpy()
        subject = subject_of(model_of(lambda f: 3 * f["x0"], X), X, y=y)
        found = permutation_importance.permutation_importance(
            subject, config=Config(metrics=("mae",)), seeds=Seeds(seed), order=np.arange(2)
        )
        expected = 6 / np.sqrt(np.pi)
        covered += bool(found.low[0] <= expected <= found.high[0])
    assert covered >= 44


def test_without_labels_permutation_importance_is_missing_and_says_why():
    subject, attributions = linear_case(y=None)
    result = section(subject, attributions)
    assert result.artifacts[0].table["permutation_importance"].isna().all()
    assert "no labels" in result.artifacts[0].meta["permutation"]["reason"]
    assert any(c.code == "no_permutation_importance" for c in result.caveats)


@pytest.mark.parametrize("n", [2, 3, 9, 60])
def test_one_class_in_the_labels_falls_back_to_a_metric_that_is_defined(n):
    X = normal_frame(n, 2)

    def respond(frame):
        p = 1 / (1 + np.exp(-frame["x0"].to_numpy()))
        probability = np.stack([1 - p, p], axis=1)
        return Response(output=p[:, None], label=np.where(p > 0.5, "yes", "no"), probability=probability)

    model = model_of(
        lambda f: f["x0"],
        X,
        outputs=("yes",),
        task="binary",
        output_space="probability",
        respond=respond,
        classes=("no", "yes"),
        positive=1,
    )
    subject = subject_of(model, X, y=np.array(["yes"] * n))
    phi = np.stack([subject.response.output[:, 0] - 0.5, np.zeros(n)], axis=1)
    made = section(subject, attributions_of(subject, phi)).artifacts[0]
    assert made.meta["permutation"]["metric"] == "log_loss"
    assert made.table["permutation_importance"].notna().all()
    # a few rows have no interval
    assert made.table["permutation_ci_low"].notna().all() == (n >= permutation_importance.FEWEST_ROWS)


def test_a_model_that_fails_on_shuffled_rows_costs_only_permutation_importance():
    X = normal_frame(50, 2)
    good = model_of(lambda f: f["x0"], X)

    def respond(frame):
        if len(frame) > 50:
            msg = "no such combination"
            raise PredictionFailed(msg)
        return good.respond(frame)

    subject = subject_of(model_of(lambda f: f["x0"], X, respond=respond), X, y=X["x0"].to_numpy())
    result = section(subject, attributions_of(subject, X.to_numpy()))
    assert result.artifacts[0].table["mean_abs_shap"].notna().all()
    assert "no such combination" in result.artifacts[0].meta["permutation"]["reason"]


def test_a_spent_budget_is_said():
    subject, attributions = linear_case()
    result = section(subject, attributions, budget=1e-9)
    assert result.artifacts[0].table["permutation_importance"].isna().all()
    cut = [c for c in result.caveats if c.code == "permutation_budget"]
    assert cut[0].degrades
    assert "0 of 4" in cut[0].message


def test_groups_sum_attributions_of_their_columns():
    subject, attributions = linear_case()
    table = tables(subject, attributions, feature_groups={"pair": ("x1", "x2")})["importance_groups"]
    shown = table.set_index("group")
    expected = np.abs(attributions.values[:, 1, 0] + attributions.values[:, 2, 0]).mean()
    assert shown.loc["pair", "mean_abs_shap"] == pytest.approx(expected)
    assert json.loads(shown.loc["pair", "members"]) == ["x1", "x2"]
    assert sorted(shown.index) == ["pair", "x0", "x3"]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"g": ("nope",)}, "nope"),
        ({"g": ()}, "empty"),
        ({"g": ("x0",), "h": ("x0",)}, "once"),
        ({"x1": ("x0",)}, "name of a column"),
    ],
)
def test_groups_that_break_a_rule_are_refused(groups, words):
    subject, attributions = linear_case()
    with pytest.raises(InvalidInput, match=words):
        section(subject, attributions, feature_groups=groups)


def test_clusters_join_columns_that_carry_the_same_information():
    X = normal_frame(400, 3)
    X["copy"] = np.exp(X["x0"])
    X["level"] = np.where(X["x1"] > 0.7, "high", np.where(X["x1"] < -0.7, "low", "middle"))
    subject, attributions = additive_case(
        X, {"x0": lambda s: s, "x1": lambda s: s / 2, "x2": lambda s: s / 3}
    )
    result = section(subject, attributions)
    table = next(a.table for a in result.artifacts if a.name == "importance_clusters")
    members = {frozenset(json.loads(m)) for m in table["members"]}
    assert members == {frozenset({"x0", "copy"}), frozenset({"x1", "level"}), frozenset({"x2"})}
    assert any(c.code == "correlated_features" and "'copy'" in c.message for c in result.caveats)


def test_independent_columns_of_any_kind_form_no_cluster():
    rng = np.random.default_rng(0)
    X = normal_frame(300, 2).assign(a=rng.choice(list("abc"), 300), b=rng.choice(200, 300).astype(str))
    association = clusters.association_matrix(X)
    assert np.abs(association - np.eye(4)).max() < 0.25
    assert clusters.find(X, order=np.arange(4), rng=rng).members == ()


def test_association_of_numbers_is_spearmans_on_complete_rows():
    X = normal_frame(200, 2)
    X["x1"] = X["x0"] + X["x1"]
    X.loc[::5, "x1"] = np.nan
    known = X.dropna()
    expected = known["x0"].rank().corr(known["x1"].rank())
    assert clusters.association_matrix(X)[0, 1] == pytest.approx(expected, abs=0.01)


def outputs_case(scale=1.0, space="probability"):
    X = normal_frame(100, 3)
    model = model_of(
        lambda f: np.zeros((len(f), 2)), X, outputs=("a", "b"), output_space=space, task="multiclass"
    )
    subject = subject_of(model, X)
    phi = np.stack([X.to_numpy(), scale * X.to_numpy()[:, ::-1] * [1, 2, 3]], axis=2)
    return subject, attributions_of(subject, phi)


def test_several_outputs_have_their_own_rows_and_a_mean():
    subject, attributions = outputs_case()
    table = tables(subject, attributions)["importance"]
    assert list(dict.fromkeys(table["output"])) == ["a", "b", importance.MEAN_OVER_OUTPUTS]
    sums = table.groupby("output")["mean_abs_shap"].transform(
        "sum"
    )  # the gate refuses other shares, of the mean too
    np.testing.assert_allclose(table["share"], table["mean_abs_shap"] / sums)
    mean = table[table["output"] == importance.MEAN_OVER_OUTPUTS].set_index("feature")["mean_abs_shap"]
    expected = np.abs(attributions.values).mean(axis=(0, 2))
    np.testing.assert_allclose(mean[list(subject.X.columns)], expected)


def test_the_mean_over_regression_targets_ignores_their_units():
    found = []
    for scale in (1.0, 1000.0):
        subject, attributions = outputs_case(scale, "prediction")
        table = tables(subject, attributions)["importance"]
        found.append(
            table[table["output"] == importance.MEAN_OVER_OUTPUTS].set_index("feature")["mean_abs_shap"]
        )
    np.testing.assert_allclose(found[0], found[1][found[0].index])


def test_beeswarm_cells_count_every_row_and_hold_no_values():
    X = normal_frame(300, 3).assign(kind=["a", "b", "c"] * 100)
    subject, attributions = additive_case(
        X, {"x0": lambda s: s, "x1": lambda s: s**2, "kind": lambda s: s == "a"}
    )
    bees = tables(subject, attributions, redact="x1")["beeswarm"]
    assert (bees.groupby("feature")["count"].sum() == 300).all()
    assert bees[bees["feature"] == "kind"]["mean_value_rank"].isna().all()
    assert bees[bees["feature"] == "x1"]["mean_value_rank"].isna().all()
    mine = bees[bees["feature"] == "x0"]
    assert np.corrcoef(mine["shap_low"], mine["mean_value_rank"])[0, 1] > 0.9


def test_strict_beeswarm_has_no_small_cell_and_no_extreme():
    X = normal_frame(300, 2)
    X.loc[0, "x0"] = 1e6
    subject, attributions = additive_case(X, {"x0": lambda s: s, "x1": lambda s: s})
    bees = tables(subject, attributions, privacy="strict")["beeswarm"]
    assert bees["count"].min() >= 5
    assert (bees.groupby("feature")["count"].sum() == 300).all()
    assert bees["shap_high"].max() < 1e5


def test_a_single_row_does_not_widen_a_strict_cell():
    X = pd.DataFrame({"x0": np.r_[np.full(100, 0.5), -1.0, np.linspace(0.9, 1.1, 99)], "x1": np.ones(200)})
    subject, attributions = additive_case(X, {"x0": lambda s: s})
    bees = tables(subject, attributions, privacy="strict")["beeswarm"]
    cell = bees[bees["count"] == bees[bees["feature"] == "x0"]["count"].max()].iloc[0]
    assert cell["count"] == 101
    assert cell["shap_high"] - cell["shap_low"] < 0.05


def test_estimated_attributions_carry_their_error_and_its_caveat():
    X = normal_frame(100, 2)
    subject = subject_of(model_of(lambda f: f["x0"], X), X)
    noise = np.random.default_rng(0).normal(scale=0.1, size=100)
    phi = np.stack([X["x0"], noise], axis=1)
    attributions = attributions_of(subject, phi, exact=False, standard_error=np.full((100, 2, 1), 0.1))
    result = section(subject, attributions)
    table = result.artifacts[0].table.set_index("feature")
    assert table["mean_standard_error"].tolist() == pytest.approx([0.1, 0.1])
    assert table.loc["x1", "mean_abs_shap_raw"] == pytest.approx(np.abs(noise).mean())
    assert 0 <= table.loc["x1", "mean_abs_shap"] < 0.5 * table.loc["x1", "mean_abs_shap_raw"]
    assert table.loc["x1", "ci_low"] == 0
    assert "sampling noise" in result.artifacts[0].meta["interval"]
    assert "subtracted" in result.artifacts[0].meta["noise"]
    assert any(
        c.code == "monte_carlo_noise" and "'x1'" in c.message and "'x0'" not in c.message
        for c in result.caveats
    )


@pytest.mark.parametrize("space", ["probability", "prediction"])
def test_the_mean_over_outputs_is_corrected_as_each_output_is(space):
    subject, exact = outputs_case(space=space)
    rng = np.random.default_rng(0)
    parts = exact.values + 2 * rng.normal(scale=0.8, size=(4, *exact.values.shape))
    noisy = attributions_of(
        subject, parts.mean(axis=0), standard_error=np.full(exact.values.shape, 0.8), parts=parts
    )
    found = [importance.importance_table(a, weights=None, seeds=SEEDS) for a in (exact, noisy)]
    true, shown = (t[t["output"] == importance.MEAN_OVER_OUTPUTS].set_index("feature") for t in found)
    shown = shown.loc[true.index]
    off = (shown["mean_abs_shap"] - true["mean_abs_shap"]).abs().sum()
    assert off < (0.4 if space == "probability" else 0.15)
    assert (shown["ci_low"] <= shown["mean_abs_shap"]).all()
    if space == "probability":
        assert (shown["mean_abs_shap"] < shown["mean_abs_shap_raw"]).all()
        assert (shown["mean_abs_shap_raw"] - true["mean_abs_shap"]).abs().sum() > 1.5 * off


@pytest.mark.parametrize("space", ["probability", "prediction"])
def test_the_order_of_other_sections_is_that_of_the_table(space):
    """Of outputs in one unit the mean size counts, whatever the total of each output."""
    subject, _ = outputs_case(space=space)
    signs = np.where(np.arange(100) % 2, 1.0, -1.0)[:, None, None]
    sizes = np.array([[0.30, 0.01], [0.00, 0.09], [0.20, 0.03]])  # shares: 0.60 0.08, 0 0.69, 0.40 0.23
    attributions = attributions_of(subject, signs * sizes)
    table = importance.importance_table(attributions, weights=None, seeds=SEEDS)
    shown = table[table["output"] == importance.MEAN_OVER_OUTPUTS]["feature"].tolist()
    assert shown == (["x0", "x2", "x1"] if space == "probability" else ["x1", "x0", "x2"])
    assert [attributions.feature_names[j] for j in importance.ranking(attributions)] == shown


def test_exact_attributions_say_nothing_of_noise():
    subject, attributions = linear_case()
    main = section(subject, attributions).artifacts[0]
    assert "noise" not in main.meta
    assert main.meta["interval"] == importance.INTERVAL
    assert "mean_abs_shap_raw" not in main.table
    assert importance.ESTIMATED != importance.INTERVAL


def test_attributions_that_are_all_zero_have_no_order_and_no_share():
    X = normal_frame(100, 2)
    subject = subject_of(model_of(lambda f: np.ones(len(f)), X), X)
    result = section(subject, attributions_of(subject, np.zeros((100, 2))))
    assert "tied_ranks" not in {c.code for c in result.caveats}
    assert (result.artifacts[0].table["rank_high"] == 2).all()
    assert (result.artifacts[0].table["share"] == 0).all()


def test_one_row_is_not_applicable():
    X = normal_frame(1, 2)
    subject = subject_of(model_of(lambda f: f["x0"], X), X)
    with pytest.raises(NotApplicable, match="at least 2"):
        section(subject, attributions_of(subject, np.zeros((1, 2))))


def test_same_input_same_tables_inputs_unchanged_and_strict_json_meta():
    subject, attributions = linear_case()
    before = subject.X.copy(deep=True)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the caller's legacy state is the subject
    one, two = section(subject, attributions), section(subject, attributions)
    for first, second in zip(one.artifacts, two.artifacts, strict=True):
        pd.testing.assert_frame_equal(first.table, second.table)
        json.dumps(first.meta, allow_nan=False)
        assert first.meta["quantity"]["exact"] is True
        assert first.meta["interval"]
    pd.testing.assert_frame_equal(subject.X, before)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
