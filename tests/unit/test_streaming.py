"""Aggregates of many rows: blocks merge to the whole, and the overlaid tables are those of all rows in memory."""

from __future__ import annotations

import dataclasses
import itertools
from functools import reduce

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression

from explain_step import streaming
from explain_step.artifacts import BUILDERS
from explain_step.compute import Explanation, compute, described, judge
from explain_step.config import Config
from explain_step.errors import InvalidInput
from explain_step.streaming import moments
from explain_step.streaming.moments import Moments
from explain_step.types import Artifact

N = 6_000


def numbers(a: Moments) -> list[np.ndarray]:
    return [getattr(a, name) for name in Moments.__slots__]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_moments_of_any_blocks_merge_to_those_of_the_whole(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    n, parts = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 6))
    full, weighted = data.draw(st.booleans()), data.draw(st.booleans())
    rng = np.random.default_rng(seed)
    values = rng.lognormal(sigma=2, size=(n, 3)) + rng.choice([0.0, 1e6])
    groups = 1 if full else 4
    codes = None if full else rng.integers(-1, groups, size=n)
    weights = rng.choice([0.0, 0.5, 3.0], size=n) if weighted else None
    where = rng.integers(parts, size=n)

    def of(rows: np.ndarray) -> Moments:
        own = None if codes is None else codes[rows]
        some = None if weights is None else weights[rows]
        return moments.of(values[rows], own, groups=groups, weights=some, full=full)

    blocks = [of(np.flatnonzero(where == p)) for p in rng.permutation(parts)]
    merged, whole = reduce(moments.merge, blocks), of(np.arange(n))
    size = np.abs(values).max()
    for name, one, other in zip(Moments.__slots__, numbers(merged), numbers(whole), strict=True):
        scale = {"mean": size, "centre": size, "spread": size**2 * 9 * n}.get(name, 1.0)
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * scale, err_msg=name)


def test_errors_of_weighted_means_are_those_of_the_segment_statistics() -> None:
    from explain_step.artifacts.segment_statistics import moments as direct

    rng = np.random.default_rng(0)
    values, weights = rng.exponential(size=(500, 3)), rng.exponential(size=500)
    wanted = direct(values, weights)
    halves = [moments.of(values[s], weights=weights[s]) for s in (slice(0, 100), slice(100, None))]
    found = moments.merge(*halves)
    np.testing.assert_allclose(found.mean[0], wanted.mean, rtol=1e-12)
    np.testing.assert_allclose(found.error()[0] * np.sqrt(500 / 499), wanted.error, rtol=1e-12)


def table_of(explanation: Explanation, name: str) -> pd.DataFrame:
    return {a.name: a for a in explanation.artifacts}[name].table


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    X = pd.DataFrame(
        {
            "a": rng.normal(size=N),
            "b": rng.exponential(size=N),
            "few": rng.integers(0, 4, N).astype(float),
            "twin": np.zeros(N),
        }
    )
    X["twin"] = X["a"] + rng.normal(scale=0.1, size=N)
    frame = X.assign(
        kind=rng.choice(["u", "v", "w"], N, p=[0.6, 0.39, 0.01]),
        day=pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 900, N), "D"),
    )
    y = X["a"] * 2 + X["b"] - X["few"] / 2 + rng.normal(size=N)
    return frame, y.to_numpy(), rng.uniform(0.5, 2, N)


FEATURES = ["a", "b", "few", "twin"]
SEGMENTS = ["kind", "a < 0", ("kind", "b"), "day"]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "weighted"])
def in_memory(request, rows) -> Explanation:
    frame, y, weights = rows
    model = LinearRegression().fit(frame[FEATURES], y)
    config = Config(segments=SEGMENTS, feature_groups={"both": ["a", "twin"]})
    return compute(
        model, frame, y, config=config, background=frame[FEATURES][:300],
        sample_weight=weights if request.param else None,
    )  # fmt: skip


def block_totals(plan: streaming.Plan, explanation: Explanation, cuts: list[int]) -> list[streaming.Totals]:
    found = []
    for a, b in itertools.pairwise(cuts):
        at = np.arange(a, b)
        values = explanation.attributions
        part = dataclasses.replace(
            values, values=values.values[at], base_values=values.base_values[at], rows=np.arange(b - a)
        )
        found.append(streaming.of_block(plan, explanation.subject.take(at), part))
    return found


def overlaid(explanation: Explanation, cuts: list[int]) -> tuple[dict[str, Artifact], streaming.Totals]:
    config = explanation.config
    plan = streaming.plan_of(
        explanation.subject, explanation.attributions, explanation.artifacts, config=config
    )
    assert plan.kept == ()
    plan = streaming.Plan.from_json(plan.to_json())
    blocks = [streaming.from_bytes(streaming.to_bytes(t)) for t in block_totals(plan, explanation, cuts)]
    totals = reduce(streaming.merge, reversed(blocks))
    return {a.name: a for a in streaming.overlay(explanation.artifacts, plan, totals, config=config)}, totals


KEYS = ["segment", "level", "feature"]
INTERVALS = ("ci_low", "ci_high", "share_ci_low", "share_ci_high", "cumulative_ci_low", "cumulative_ci_high")


def test_tables_from_blocks_are_those_from_all_rows_at_once(in_memory: Explanation) -> None:
    """Plan of the same rows: every number agrees, and interval ends to a part of their width."""
    found, totals = overlaid(in_memory, [0, 1, 900, 901, 4_000, N])
    assert totals.rows == N
    assert totals.broken == 0
    before = {a.name: a for a in in_memory.artifacts}
    names = [
        name
        for name in ("importance", "importance_groups", "importance_clusters", "dependence")
        if name in before
    ]
    assert {"importance", "importance_groups", "dependence"} <= set(names)
    for name in names:
        old, new = before[name].table, found[name].table
        assert list(old.columns) == list(new.columns)
        assert len(old) == len(new)
        for column in old.columns:
            if old[column].dtype != np.float64:
                assert old[column].fillna("").tolist() == new[column].fillna("").tolist(), (name, column)
                continue
            width = (old["ci_high"] - old["ci_low"]).abs().to_numpy()
            # bins of under 500 rows, and sums of skewed sizes, have bootstrap intervals in memory
            allowed = 0.15 * np.nan_to_num(width) if column in INTERVALS else 0.0
            gap = np.abs(old[column].to_numpy() - new[column].to_numpy())
            scale = 1e-11 * np.nanmax(np.abs(old[column].to_numpy()), initial=1.0)
            assert (np.isnan(old[column]) == np.isnan(new[column])).all(), (name, column)
            assert (np.nan_to_num(gap) <= allowed + scale).all(), (name, column, np.nanmax(gap))


def test_curves_come_in_the_order_of_importance_of_all_rows(in_memory: Explanation) -> None:
    """The sample may have had another order."""
    other = [
        dataclasses.replace(
            a, table=a.table.sort_values("feature", ascending=False, kind="stable", ignore_index=True)
        )
        if a.name == "dependence"
        else a
        for a in in_memory.artifacts
    ]
    found, _ = overlaid(dataclasses.replace(in_memory, artifacts=tuple(other)), [0, N])
    curves = list(dict.fromkeys(found["dependence"].table["feature"]))
    assert curves == found["importance"].table["feature"].tolist() != sorted(curves, reverse=True)


def test_segments_from_blocks_are_those_from_all_rows_at_once(in_memory: Explanation) -> None:
    found, _ = overlaid(in_memory, [0, 2_000, N])
    old, new = (
        t.sort_values(KEYS).reset_index(drop=True)
        for t in (table_of(in_memory, "segments"), found["segments"].table)
    )
    assert old[[*KEYS, "withheld"]].fillna("").equals(new[[*KEYS, "withheld"]].fillna(""))
    same = (
        "n",
        "n_explained",
        "metric_value",
        "mean_abs_shap",
        "difference",
    )
    for column in same:
        np.testing.assert_allclose(new[column], old[column], rtol=1e-9, atol=1e-11, err_msg=column)
    large = old["n"] > 1_000
    both = large & (old["n"] < N - 1_000)  # else groups drawn by chance in memory, Welch from sums
    assert both.any()
    np.testing.assert_allclose(new["difference_ci_low"][both], old["difference_ci_low"][both], rtol=1e-9)
    sure = (old["p_adjusted"] < 0.001) | (old["p_adjusted"] > 0.5)
    assert ((old["p_adjusted"] < 0.05) == (new["p_adjusted"] < 0.05))[sure].all()
    width = (old["ci_high"] - old["ci_low"])[large]
    assert ((new["ci_low"] - old["ci_low"])[large].abs() <= 0.05 * width).all()


def test_many_rows_give_the_numbers_of_all_rows_and_say_what_is_of_the_sample(rows) -> None:
    frame, y, _ = rows
    model = LinearRegression().fit(frame[FEATURES], y)
    options = {"config": Config(segments=["kind"]), "background": frame[FEATURES][:300]}
    whole = compute(model, frame, y, **options)
    streamed = compute(model, frame, y, many=500, **options)
    assert judge(streamed)[0] == judge(whole)[0] == "complete"
    one, other = (table_of(e, "importance").set_index("feature") for e in (streamed, whole))
    for column in ("mean_abs_shap", "mean_shap", "share", "rank_low", "rank_high"):
        np.testing.assert_allclose(one[column], other[column].reindex(one.index), rtol=1e-9, atol=1e-12)
    facts = described(streamed)
    assert (facts["rows"], facts["rows_given"]) == (N, N)
    assert facts["sample_rows"] == len(streamed.attributions.rows) < N
    by_name = {a.name: a.meta for a in streamed.artifacts}
    assert by_name["importance"]["quantity"]["rows"] == N
    assert by_name["performance"]["quantity"]["rows"] == N
    assert by_name["scores"]["quantity"]["rows"] == facts["sample_rows"]
    assert all("rows_of" in meta for meta in by_name.values())
    said = [c for c in streamed.caveats if c.code == "rows_streamed"]
    assert len(said) == 1
    assert f"{N:,} rows" in said[0].message
    assert not said[0].degrades
    kinds = table_of(streamed, "segments").drop_duplicates(["segment", "level"]).set_index("level")["n"]
    counts = frame["kind"].value_counts()
    assert kinds["u"] == counts["u"]
    assert kinds["w"] == counts["w"]


@pytest.mark.parametrize("segments", [SEGMENTS, []], ids=["declared", "found"])
def test_performance_of_many_rows_is_that_of_all_of_them(rows, segments) -> None:
    frame, y, weights = rows
    model = LinearRegression().fit(frame[FEATURES], y)
    options = {
        "config": Config(segments=segments),
        "background": frame[FEATURES][:300],
        "sample_weight": weights,
    }
    whole = compute(model, frame, y, **options)
    streamed = compute(model, frame, y, many=500, **options)
    pd.testing.assert_frame_equal(table_of(streamed, "performance"), table_of(whole, "performance"))
    one, other = (table_of(e, "segments").sort_values(KEYS, ignore_index=True) for e in (streamed, whole))
    exact = [*KEYS, "n", "withheld", *(c for c in one.columns if c.startswith("metric"))]
    pd.testing.assert_frame_equal(one[exact], other[exact])
    np.testing.assert_allclose(one["mean_abs_shap"], other["mean_abs_shap"], rtol=1e-9)
    if not segments:
        pd.testing.assert_frame_equal(table_of(streamed, "segment_search"), table_of(whole, "segment_search"))
    meta = {a.name: a.meta for a in streamed.artifacts}
    assert f"all {N:,} rows" in meta["segments"]["rows_of"]
    assert "sample" not in meta["segments"]["rows_of"]
    said = next(c.message for c in streamed.caveats if c.code == "rows_streamed")
    assert "so is performance" in said


def test_max_rows_keeps_its_meaning(rows) -> None:
    frame, y, _ = rows
    model = LinearRegression().fit(frame[FEATURES], y)
    found = compute(model, frame, y, config=Config(max_rows=700), builders=(), many=500)
    assert found.counted is None
    assert described(found)["rows"] == 700


def test_probabilities_of_a_linear_model_are_not_streamed(rows) -> None:
    frame, y, _ = rows
    model = LogisticRegression().fit(frame[FEATURES], y > 1)
    config = Config(output="probability", budget=2, max_rows=None)
    found = compute(model, frame[FEATURES][:1_500], y[:1_500] > 1, config=config, builders=(), many=500)
    assert found.counted is None
    assert not found.attributions.method.exact


def test_several_outputs_have_their_mean(rows) -> None:
    frame, y, _ = rows
    model = LogisticRegression().fit(frame[FEATURES], np.digitize(y, [0.0, 2.0]))
    builders = tuple(b for b in BUILDERS if b.name == "importance")
    options = {"config": Config(output="margin"), "background": frame[FEATURES][:300], "builders": builders}
    whole = compute(model, frame, None, **options)
    streamed = compute(model, frame, None, many=500, **options)
    keys = ["output", "feature"]
    one, other = (table_of(e, "importance").set_index(keys) for e in (streamed, whole))
    assert list(one.index) == list(other.index)
    np.testing.assert_allclose(one["mean_abs_shap"], other["mean_abs_shap"], rtol=1e-9)
    np.testing.assert_allclose(one["rank_high"], other["rank_high"])


def test_a_level_that_the_sample_lacks_is_counted_and_withheld_where_it_is_small(rows) -> None:
    frame, y, _ = rows
    frame = frame.assign(kind=np.where(np.arange(N) < 7, "new", frame["kind"]))
    model = LinearRegression().fit(frame[FEATURES], y)
    small = compute(model, frame[1_000:].reset_index(drop=True), y[1_000:], config=Config(segments=["kind"]),
                    background=frame[FEATURES][:300])  # fmt: skip
    plan = streaming.plan_of(small.subject, small.attributions, small.artifacts, config=small.config)
    whole = compute(model, frame, y, config=small.config, background=frame[FEATURES][:300], builders=())
    totals = block_totals(plan, whole, [0, N])[0]
    table = {a.name: a for a in streaming.overlay(small.artifacts, plan, totals, config=small.config)}[
        "segments"
    ].table
    heads = table.drop_duplicates(["segment", "level"]).set_index("level")
    assert np.isnan(heads.loc["other levels", "n"])  # 7 rows: under min_segment
    assert heads.loc["other levels", "withheld"]
    assert heads["withheld"].notna().sum() >= 2  # and none that would give it away by subtraction
    codes = [
        c.code for c in streaming.caveats(small.caveats, small.artifacts, plan, totals, config=small.config)
    ]
    assert "rows_streamed" in codes


def test_a_row_that_does_not_sum_is_counted(in_memory: Explanation) -> None:
    plan = streaming.plan_of(
        in_memory.subject, in_memory.attributions, in_memory.artifacts, config=in_memory.config
    )
    values = np.array(in_memory.attributions.values)
    values[17, 0] += 0.5
    values[40, 0] = np.nan
    broken = dataclasses.replace(in_memory.attributions, values=values)
    found = streaming.of_block(plan, in_memory.subject, broken)
    assert found.broken == 2
    assert found.error == float("inf")


def test_bytes_of_something_else_are_refused() -> None:
    with pytest.raises(InvalidInput, match="totals"):
        streaming.from_bytes(b"PK\x03\x04 no archive")


def test_totals_of_other_plans_do_not_merge(in_memory: Explanation) -> None:
    args = (in_memory.subject, in_memory.attributions, in_memory.artifacts)
    plan = streaming.plan_of(*args, config=in_memory.config)
    less = dataclasses.replace(plan, segments=plan.segments[:1])
    a, b = (streaming.of_block(p, in_memory.subject, in_memory.attributions) for p in (plan, less))
    with pytest.raises(InvalidInput, match="same plan"):
        streaming.merge(a, b)


def test_without_covariances_intervals_are_wider_and_hold_the_others() -> None:
    from explain_step.streaming import of_views

    rng = np.random.default_rng(3)
    size = np.abs(rng.normal(size=(4_000, 6)) * np.array([3, 2, 2.02, 1, 0.5, 0.0]))
    full, thin = (of_views.summary(moments.of(size, full=f)) for f in (True, False))
    np.testing.assert_allclose(full["mean_abs_shap"], thin["mean_abs_shap"])
    for name in ("share_ci", "cumulative_ci"):
        assert (thin[f"{name}_low"] <= full[f"{name}_low"] + 1e-12).all()
        assert (thin[f"{name}_high"] >= full[f"{name}_high"] - 1e-12).all()
    assert (thin["rank_low"] <= full["rank_low"]).all()
    assert (thin["rank_high"] >= full["rank_high"]).all()


def test_frames_of_many_rows_share_the_callers_memory_and_give_the_same_subject(rows) -> None:
    from explain_step import data, models

    frame, y, weights = rows
    frame = frame.set_axis([f"row{k}" for k in range(N)])
    model = LinearRegression().fit(frame[FEATURES], y)
    fitted = models.wrap(model, frame=frame, config=Config())
    options = {"config": Config(), "background": frame[FEATURES][:300], "sample_weight": weights}
    few, many = (data.subject(fitted, frame, y, many=m, **options)[0] for m in (N, N - 1))
    assert np.shares_memory(many.X["a"].to_numpy(), frame["a"].to_numpy())
    assert np.shares_memory(many.frame["b"].to_numpy(), frame["b"].to_numpy())
    pd.testing.assert_frame_equal(few.X, many.X)
    pd.testing.assert_frame_equal(few.frame, many.frame)
    np.testing.assert_allclose(few.response.output, many.response.output, rtol=1e-14)
    assert few.row_ids.tolist() == many.row_ids.tolist()


def test_many_rows_without_a_background_are_compared_with_a_stated_sample(rows) -> None:
    from explain_step import data, models

    frame, y, _ = rows
    fitted = models.wrap(LinearRegression().fit(frame[FEATURES], y), frame=frame, config=Config())
    found, caveats = data.subject(fitted, frame, y, config=Config(), many=100)
    assert found.background_name == f"a seeded sample of {N:,} of the {N:,} explained rows"
    assert any(c.code == "background_is_sample" and "seeded sample" in c.message for c in caveats)


def test_strict_a_few_rows_beside_the_named_levels_leave_the_sample_s_numbers(rows) -> None:
    frame, y, _ = rows
    code = np.where(frame["few"] > 1, "high", "low").astype(object)
    X = pd.DataFrame({"a": frame["a"], "code": pd.Categorical(code, categories=["high", "low", "new"])})
    coded = pd.DataFrame({"a": X["a"], "code": X["code"].cat.codes})
    model = LinearRegression().fit(coded, y)

    def predict(given: pd.DataFrame) -> np.ndarray:
        return model.predict(given.assign(code=given["code"].cat.codes))

    config = Config(privacy="strict", task="regression")
    half = N // 2
    small = compute(predict, X[:half].reset_index(drop=True), y[:half], config=config, background=X[:50])
    plan = streaming.plan_of(small.subject, small.attributions, small.artifacts, config=config)
    assert [c.feature for c in plan.curves if c.levels] == ["code"]
    for unseen, kept in ((5, True), (50, False), (0, False)):
        more = X[:half].reset_index(drop=True)
        more.loc[: unseen - 1, "code"] = "new" if unseen else more["code"]
        subject = dataclasses.replace(small.subject, X=more, frame=more)
        totals = streaming.of_block(plan, subject, small.attributions)
        table = {a.name: a for a in streaming.overlay(small.artifacts, plan, totals, config=config)}[
            "dependence"
        ].table
        shap = table[(table["feature"] == "code") & (table["curve"] == "shap")].set_index("level")
        named = shap.loc[["high", "low"], "count"].sum()
        assert named == (half if kept else half - unseen)
        assert ("other levels" in shap.index) == (unseen == 50)
