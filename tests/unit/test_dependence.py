from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from effect_kit import additive_case, attributions_of, model_of, normal_frame, subject_of

from explain_step import privacy
from explain_step.artifacts import columns, dependence, effect_tables, effects
from explain_step.compute import compute
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.seeds import Seeds

SEEDS = Seeds(0)


def section(subject, attributions, **options):
    return dependence.build(subject, attributions, config=Config.parse(options), seeds=SEEDS)


def table_of(subject, attributions, **options):
    return section(subject, attributions, **options).artifacts[0].table


def curve(table, feature, name):
    return table[(table["feature"] == feature) & (table["curve"] == name)].reset_index(drop=True)


def centred(values, weights=None):
    return np.asarray(values) - np.average(values, weights=weights)


def test_pdp_and_ale_of_an_additive_model_are_its_terms_up_to_a_constant():
    X = normal_frame(300, 3)
    X["x1"] = 0.8 * X["x0"] + 0.6 * X["x1"]
    subject, attributions = additive_case(X, {"x0": np.sin, "x1": lambda s: s**2, "x2": lambda s: 2 * s})
    table = table_of(subject, attributions)
    for name, term in {"x0": np.sin, "x1": np.square, "x2": lambda v: 2 * v}.items():
        for kind in ("pdp", "ale"):
            found = curve(table, name, kind)
            np.testing.assert_allclose(
                centred(found["value"]), centred(term(found["x"].to_numpy())), atol=1e-9
            )


def test_the_mean_of_ale_over_the_rows_is_zero():
    X = normal_frame(200, 2)
    subject, attributions = additive_case(X, {"x0": lambda s: 3 * s})
    ale = curve(table_of(subject, attributions), "x0", "ale")
    at_rows = np.interp(X["x0"], ale["x"], ale["value"])
    assert at_rows.mean() == pytest.approx(0, abs=1e-9)


def test_pdp_is_in_the_output_space_with_its_interval_over_reference_rows():
    X = normal_frame(200, 2)
    subject, attributions = additive_case(X, {"x0": lambda s: s, "x1": lambda s: 10 + s})
    pdp = curve(table_of(subject, attributions), "x0", "pdp")
    np.testing.assert_allclose(pdp["value"], pdp["x"] + 10 + X["x1"].mean())
    half = (pdp["ci_high"] - pdp["ci_low"]) / 2
    np.testing.assert_allclose(half, 1.97 * X["x1"].std() / np.sqrt(200), rtol=0.15)


def test_shap_curve_of_few_values_is_the_centred_function():
    X = pd.DataFrame({"x0": np.tile([1, 2, 5, 9], 50), "x1": np.linspace(0, 1, 200)})
    subject, attributions = additive_case(X, {"x0": np.sqrt, "x1": lambda s: s})
    shap = curve(table_of(subject, attributions), "x0", "shap")
    assert shap["x"].tolist() == [1, 2, 5, 9]
    np.testing.assert_allclose(shap["value"], np.sqrt(shap["x"]) - np.sqrt(X["x0"]).mean())
    assert shap["count"].tolist() == [50, 50, 50, 50]


def test_shap_bins_hold_every_row_and_follow_the_function():
    X = normal_frame(500, 2)
    subject, attributions = additive_case(X, {"x0": lambda s: s**3, "x1": lambda s: s})
    shap = curve(table_of(subject, attributions), "x0", "shap")
    assert shap["count"].sum() == 500
    assert shap["count"].min() >= dependence.SMALLEST_BIN
    inside = X["x0"].between(shap.loc[5, "x_low"], shap.loc[5, "x_high"], inclusive="left")
    assert shap.loc[5, "value"] == pytest.approx(attributions.values[inside, 0, 0].mean())
    assert ((shap["ci_low"] <= shap["value"]) & (shap["value"] <= shap["ci_high"])).all()


def test_weights_count_in_the_shap_curve():
    X = pd.DataFrame({"x0": [0, 0, 1, 1] * 10, "x1": [0.0, 1.0, 0.0, 1.0] * 10})
    weights = np.array([3.0, 1.0, 3.0, 1.0] * 10)
    subject = subject_of(model_of(lambda f: f["x0"] * f["x1"], X), X, weights=weights)
    phi = (X["x0"] * X["x1"] / 2).to_numpy()
    attributions = attributions_of(subject, np.stack([phi, phi], axis=1))
    shap = curve(table_of(subject, attributions), "x0", "shap")
    assert shap["value"].tolist() == pytest.approx([0, 0.25 / 2])


def test_a_weight_counts_in_ale_as_if_the_row_were_there_as_often():
    X = normal_frame(120, 2).assign(flag=np.arange(120) % 3 == 0)
    times = np.arange(120) % 4  # some rows do not count
    both = [(X, times / 2), (X.loc[X.index.repeat(times)].reset_index(drop=True), None)]
    found = []
    edges = np.quantile(X["x0"], np.linspace(0, 1, 9))
    for rows, weights in both:
        model = model_of(lambda f: f["x0"] * f["x1"] + f["flag"] * f["x1"], X)
        rng = np.random.default_rng(0)
        codes = rows["flag"].to_numpy().astype(np.int64)
        steps = (
            effects.local_steps(rows, "x0", edges=edges, weights=weights),
            effects.level_steps(rows, "flag", values=np.array([False, True]), codes=codes, weights=weights),
        )
        found.append(
            [effects.accumulated_local_effects(s, model.predict(s.asked.frame()), rng=rng) for s in steps]
        )
    for weighted, repeated in zip(*found, strict=True):
        np.testing.assert_allclose(weighted.value, repeated.value, atol=1e-12)
        assert (weighted.low <= weighted.value).all()
        assert (weighted.value <= weighted.high).all()


def test_disagreement_of_pdp_and_ale_is_found_where_columns_move_together():
    X = normal_frame(600, 2)
    X["x1"] = X["x0"] + 0.05 * X["x1"]
    # a function that is x0 on the data's line and the opposite off it
    subject = subject_of(model_of(lambda f: f["x0"] * (1 - 4 * np.abs(f["x0"] - f["x1"])), X), X)
    result = section(subject, attributions_of(subject, np.stack([X["x0"], 0 * X["x0"]], axis=1)))
    codes = {c.code for c in result.caveats}
    assert {"method_disagreement", "extrapolated_grid"} <= codes


def test_disagreement_is_said_once_per_feature_whatever_the_number_of_outputs():
    X = normal_frame(400, 2)
    X["x1"] = X["x0"] + 0.05 * X["x1"]

    def three(f: pd.DataFrame) -> np.ndarray:
        wild = f["x0"] * (1 - 4 * np.abs(f["x0"] - f["x1"]))
        return np.stack([wild, f["x0"], 2 * wild], axis=1)

    found = compute(three, X, config=Config(task="regression", max_rows=60)).caveats
    said = [c.message for c in found if c.code == "method_disagreement"]
    assert 1 <= len(said) <= 2
    assert len({m.split("'")[1] for m in said}) == len(said)
    assert all("differ in shape for 2 of 3 outputs (most for '" in m for m in said)


def test_independent_columns_raise_neither_caveat():
    X = normal_frame(400, 3)
    subject, attributions = additive_case(X, {"x0": lambda s: s, "x1": np.sin, "x2": np.exp})
    assert section(subject, attributions).caveats == ()


def levels_frame():
    kinds = np.array(["c"] * 60 + ["a"] * 100 + ["b"] * 38 + ["rare"] * 2)
    return pd.DataFrame({"kind": kinds, "x1": np.linspace(-1, 1, 200)})


HEIGHT = {"a": 0.0, "b": 5.0, "c": 1.0, "rare": 100.0}


def test_levels_have_names_and_no_ale():
    X = levels_frame()
    subject, attributions = additive_case(X, {"kind": lambda s: s.map(HEIGHT), "x1": lambda s: s})
    artifact = section(subject, attributions).artifacts[0]
    shap, pdp = (curve(artifact.table, "kind", c).set_index("level") for c in ("shap", "pdp"))
    mean = X["kind"].map(HEIGHT).mean()
    for level, height in HEIGHT.items():
        assert shap.loc[level, "value"] == pytest.approx(height - mean)
        assert pdp.loc[level, "value"] == pytest.approx(height)
    assert shap.loc["a", ["x", "count"]].tolist() == [0, 100]
    assert curve(artifact.table, "kind", "ale").empty
    assert "order" in artifact.meta["features"]["kind"]["ale"]


def test_ordered_and_numeric_levels_keep_their_order():
    X = levels_frame()
    X["kind"] = pd.Categorical(X["kind"], categories=["rare", "c", "b", "a"], ordered=True)
    found = columns.levels(X["kind"], config=Config())
    assert found.names == ("rare", "c", "b", "a")
    assert found.ordered
    assert columns.levels(pd.Series(["10", "9", "9"]), config=Config()).names == ("9", "10")


def test_booleans_have_an_ale_of_one_step():
    X = normal_frame(100, 1).assign(flag=np.arange(100) % 4 == 0)
    subject, attributions = additive_case(X, {"flag": lambda s: 8.0 * s.astype(float), "x0": lambda s: s})
    table = table_of(subject, attributions)
    for kind in ("pdp", "ale", "shap"):
        value = curve(table, "flag", kind).set_index("level")["value"]
        assert value["True"] - value["False"] == pytest.approx(8)
    assert curve(table, "flag", "ale").set_index("level")["value"]["False"] == pytest.approx(-2)


def test_missing_values_are_a_point_off_the_curve():
    X = normal_frame(200, 2)
    X.loc[:29, "x0"] = np.nan
    subject, attributions = additive_case(X, {"x0": lambda s: s.fillna(7.0), "x1": lambda s: s})
    table = table_of(subject, attributions)
    shap = curve(table, "x0", "shap")
    off = shap[shap["x"].isna()]
    assert off["level"].tolist() == ["(missing)"]
    assert off["count"].tolist() == [30]
    assert off["value"].iloc[0] == pytest.approx(7 - X["x0"].fillna(7.0).mean())
    assert shap[shap["x"].notna()]["count"].sum() == 170
    assert curve(table, "x0", "ale")["value"].notna().all()


def test_integer_columns_get_integers_and_stay_integers_for_the_model():
    X = pd.DataFrame(
        {"age": np.random.default_rng(0).integers(18, 90, 400), "x1": normal_frame(400, 1)["x0"]}
    )
    seen = set()

    def watched(frame):
        seen.add(str(frame["age"].dtype))
        return frame["age"] / 10

    subject = subject_of(model_of(watched, X), X)
    phi = np.stack([X["age"] / 10 - X["age"].mean() / 10, 0 * X["x1"]], axis=1)
    pdp = curve(table_of(subject, attributions_of(subject, phi)), "age", "pdp")
    assert (pdp["x"] == pdp["x"].round()).all()
    assert pdp["x"].is_unique
    assert seen == {"int64"}


def test_a_zero_inflated_column_has_its_zero_and_the_rest():
    values = np.r_[np.zeros(460), np.random.default_rng(0).lognormal(8, 1, 40)]
    grid = columns.grid(pd.Series(values), config=Config())
    assert grid[0] == 0
    assert len(grid) > 10
    assert (np.diff(grid) > 0).all()


def test_dates_are_days_and_reach_the_model_as_dates():
    days = pd.date_range("2020-01-01", periods=300, freq="D")
    X = pd.DataFrame({"day": days, "x1": normal_frame(300, 1)["x0"]})

    def since(series):
        assert pd.api.types.is_datetime64_any_dtype(series)
        return (series - pd.Timestamp("2020-01-01")) / pd.Timedelta(days=100)

    subject, attributions = additive_case(X, {"day": since, "x1": lambda s: s})
    artifact = section(subject, attributions).artifacts[0]
    pdp = curve(artifact.table, "day", "pdp")
    assert artifact.meta["features"]["day"]["kind"] == "datetime"
    assert pdp["x"].min() == (pd.Timestamp("2020-01-01") - pd.Timestamp(0)).days
    np.testing.assert_allclose(np.diff(pdp["value"]), np.diff(pdp["x"]) / 100)


@pytest.mark.parametrize("dtype", ["category", "string", "object"])
def test_levels_reach_the_model_in_their_own_dtype(dtype):
    X = levels_frame()
    X["kind"] = X["kind"].astype(dtype)
    wanted = X["kind"].dtype
    seen = []

    def watched(frame):
        seen.append(frame["kind"].dtype)
        return frame["kind"].astype(str).map(HEIGHT)

    subject = subject_of(model_of(watched, X), X)
    phi = np.stack([X["kind"].astype(str).map(HEIGHT).astype(float), X["x1"]], axis=1)
    section(subject, attributions_of(subject, phi))
    assert all(d == wanted for d in seen)


def test_all_points_of_a_feature_are_asked_for_together():
    X = normal_frame(300, 2)
    calls = []

    def counted(frame):
        calls.append(len(frame))
        return frame["x0"]

    subject = subject_of(model_of(counted, X), X)
    calls.clear()
    section(subject, attributions_of(subject, X.to_numpy()), top_features=1)
    # a few rows first, to see how fast the model is; then one call for partial dependence and local effects
    assert calls == [32, 300 * columns.POINTS + 300 * 2]


def test_redacted_columns_have_no_curve_and_a_reason():
    X = normal_frame(100, 2)
    subject, attributions = additive_case(X, {"x0": lambda s: 5 * s, "x1": lambda s: s})
    result = section(subject, attributions, redact="x0")
    assert "x0" not in set(result.artifacts[0].table["feature"])
    assert result.artifacts[0].meta["excluded"] == {"x0": "its values are redacted"}
    assert any("'x0'" in c.message for c in result.caveats)
    assert all("x0" not in set(a.table["feature"]) for a in result.artifacts)


def test_text_and_constant_columns_are_left_out_with_a_reason():
    X = normal_frame(100, 1).assign(text=[f"word {i}" for i in range(100)], same=1.0)
    phi = np.stack([X["x0"], 2 * X["x0"], 3 * X["x0"]], axis=1)
    subject = subject_of(model_of(lambda f: f["x0"], X), X)
    excluded = section(subject, attributions_of(subject, phi)).artifacts[0].meta["excluded"]
    assert "identifier" in excluded["text"]
    assert "fewer than two values" in excluded["same"]


def test_nothing_to_show_is_not_applicable():
    X = pd.DataFrame({"x0": np.ones(50)})
    subject = subject_of(model_of(lambda f: f["x0"], X), X)
    with pytest.raises(NotApplicable, match="no top feature"):
        section(subject, attributions_of(subject, np.zeros((50, 1))))


@pytest.mark.parametrize(
    ("counts", "missing", "named", "other"),
    [
        ({"a": 60, "b": 40, "c": 25, "d": 5}, 3, ["a", "b"], 33),  # c goes with the few
        ({"a": 60, "b": 40, "d": 25}, 0, ["a", "b", "d"], 0),
        ({"a": 60, "b": 40, "d": 15, "e": 9}, 0, ["a", "b"], 24),  # together they are enough
        ({"a": 60, "b": 40}, 30, ["a", "b"], 0),  # many missing cells are a level
        ({"a": 60, "d": 19}, 0, [], 79),
    ],
)
def test_strict_rest_of_the_levels_has_enough_rows_or_none(counts, missing, named, other):
    cells = [level for level, count in counts.items() for _ in range(count)] + [None] * missing
    series = pd.Series(cells, dtype=object)
    found = columns.levels(series, config=Config(privacy="strict"))
    shown = [name for name in found.names if name not in {privacy.OTHER, privacy.MISSING}]
    assert shown == named
    sizes = {name: int((found.codes == i).sum()) for i, name in enumerate(found.names)}
    assert sizes.get(privacy.OTHER, 0) == other
    assert (found.codes == -1).sum() in {0, *range(20, 999)}
    assert (privacy.MISSING in found.names) == (missing >= 20)


def test_strict_privacy_publishes_no_row_no_extreme_and_no_rare_level():
    X = levels_frame()
    X["x1"] = normal_frame(200, 1)["x0"]
    X.loc[3, "x1"] = 987654.0
    subject, attributions = additive_case(X, {"kind": lambda s: s.map(HEIGHT), "x1": lambda s: s / 1000})
    result = section(subject, attributions, privacy="strict")
    assert [a.name for a in result.artifacts] == ["dependence"]
    table = result.artifacts[0].table
    assert "ice" not in set(table["curve"])
    assert "rare" not in set(table["level"].dropna())
    numeric = table[table["feature"] == "x1"]
    assert numeric["x"].max() < 3
    assert numeric[["x_low", "x_high"]].max().max() < 3
    shown = table[(table["curve"] != "ale") & table["count"].notna()]
    assert ((shown["count"] == 0) | (shown["count"] >= 2)).all()
    assert (table[table["curve"] == "shap"]["count"] >= Config().min_segment).all()


def test_ice_lines_are_single_reference_rows():
    X = normal_frame(100, 2)
    subject, attributions = additive_case(X, {"x0": lambda s: s, "x1": lambda s: 100 * s})
    ice = curve(table_of(subject, attributions), "x0", "ice")
    assert ice["line"].nunique() == effect_tables.ICE_LINES
    first = ice[ice["line"] == 0]
    level = (first["value"] - first["x"]).to_numpy()
    np.testing.assert_allclose(level, level[0])
    assert np.isclose(100 * X["x1"], level[0]).any()


def test_a_spent_budget_leaves_features_out_and_says_so():
    X = normal_frame(100, 3)
    subject, attributions = additive_case(
        X, {"x0": lambda s: 3 * s, "x1": lambda s: 2 * s, "x2": lambda s: s}
    )
    result = section(subject, attributions, budget=1e-9)
    assert set(result.artifacts[0].table["feature"]) == {"x0"}
    assert "budget" in result.artifacts[0].meta["excluded"]["x1"]
    assert any(c.code == "dependence_budget" and c.degrades for c in result.caveats)


def test_every_output_has_its_curves():
    X = normal_frame(150, 2)
    model = model_of(lambda f: np.stack([f["x0"], -2 * f["x0"]], axis=1), X, outputs=("a", "b"))
    subject = subject_of(model, X)
    phi = np.zeros((150, 2, 2))
    phi[:, 0] = centred(X["x0"])[:, None] * [1, -2]
    table = table_of(subject, attributions_of(subject, phi))
    for kind in ("pdp", "ale", "shap"):
        mine = curve(table, "x0", kind)
        a, b = (mine[mine["output"] == o]["value"].to_numpy() for o in ("a", "b"))
        np.testing.assert_allclose(b, -2 * a, atol=1e-9)


def test_same_input_same_tables_inputs_unchanged_and_strict_json_meta():
    X = levels_frame()
    subject, attributions = additive_case(X, {"kind": lambda s: s.map(HEIGHT), "x1": lambda s: s})
    before = X.copy(deep=True)
    one, two = section(subject, attributions), section(subject, attributions)
    for first, second in zip(one.artifacts, two.artifacts, strict=True):
        pd.testing.assert_frame_equal(first.table, second.table)
        json.dumps(first.meta, allow_nan=False)
        assert first.meta["quantity"]["background"]
        assert first.meta["interval"]
    pd.testing.assert_frame_equal(X, before)
