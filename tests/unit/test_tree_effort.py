"""The cost of exact values of deep trees is reckoned from counts, and rows are cut to what a budget affords."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from explain_step.artifacts import BUILDERS
from explain_step.compute import compute, judge
from explain_step.config import Config
from explain_step.explainers import (
    ensembles,
    prepared,
    tree,
    tree_compiled,
    tree_effort,
    tree_interactions,
    tree_pilot,
)
from explain_step.seeds import Seeds
from explain_step.types import Subject

N, COLUMNS = 1_500, 14


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(N, COLUMNS)), columns=[f"c{j}" for j in range(COLUMNS)])
    return X, X.to_numpy() @ rng.normal(size=COLUMNS) + rng.normal(size=N)


@pytest.fixture(scope="module")
def forest(rows) -> RandomForestRegressor:
    X, y = rows
    return RandomForestRegressor(n_estimators=5, random_state=0).fit(X, y)


def subject_of(model: RandomForestRegressor, X: pd.DataFrame, y: np.ndarray) -> Subject:
    return compute(model, X, y, config=Config(), builders=(), background=X[:50]).subject


def pilot_of(rows_and_background: np.ndarray) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Return what gives the pilot its encoded rows."""
    ours, theirs = rows_and_background
    return lambda: (ours[:, tree_pilot.chosen(ours.shape[1])], theirs[:, tree_pilot.chosen(theirs.shape[1])])


def sampled(ensemble: ensembles.Ensemble, X: pd.DataFrame) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    return pilot_of(np.stack([ensemble.encode(X)] * 2))


def columns_on_paths(one: ensembles.Tree, sources: np.ndarray) -> list[int]:
    """Return the number of raw columns above each leaf, one path after the other."""
    found, stack = [], [(0, frozenset())]
    while stack:
        node, seen = stack.pop()
        if one.left[node] < 0:
            found.append(len(seen))
            continue
        more = seen | {int(sources[one.column[node]])}
        stack += [(int(one.left[node]), more), (int(one.right[node]), more)]
    return found


def test_deep_leaves_are_counted_by_the_columns_on_their_paths(forest, rows) -> None:
    ensemble = ensembles.parse(subject_of(forest, *rows).model)
    for sources in (np.arange(COLUMNS), np.arange(COLUMNS) // 2 * 3):
        for one in ensemble.trees:
            wanted = [k for k in columns_on_paths(one, sources) if k > tree_effort.SHALLOW]
            assert sorted(tree_effort._deep(one, sources)) == sorted(wanted)
    assert max(columns_on_paths(ensemble.trees[0], np.arange(COLUMNS))) > tree_effort.SHALLOW + 2


def test_trees_without_a_deep_leaf_are_told_at_a_glance(rows) -> None:
    X, y = rows
    for depth in range(tree_effort.SHALLOW - 1, tree_effort.SHALLOW + 2):
        model = RandomForestRegressor(n_estimators=3, max_depth=depth, random_state=0).fit(X, y)
        ensemble = ensembles.parse(subject_of(model, X, y).model)
        deepest = max(max(columns_on_paths(one, np.arange(N))) for one in ensemble.trees)
        assert deepest >= depth - 1
        assert tree_effort._is_shallow(ensemble) == (depth <= tree_effort.SHALLOW)
        entries = tree_effort.pair_entries(ensemble, sources=np.arange(COLUMNS))
        assert (entries > 0) == (
            max(len(tree_effort._deep(t, np.arange(COLUMNS))) for t in ensemble.trees) > 0
        )


def test_more_budget_affords_more_rows_and_never_too_few(forest, rows) -> None:
    ensemble = ensembles.parse(subject_of(forest, *rows).model)
    few = sampled(ensemble, rows[0])
    sizes = {"sources": np.arange(COLUMNS), "rows": 50_000, "background": 30_000, "sample": few}
    seconds = (3e-9, 0.01, 0.03, 0.06, 0.1, 0.3, 0.6, 3e9)
    found = [tree_effort.affordable(ensemble, budget=s / tree_effort.PER_SECOND, **sizes) for s in seconds]
    assert found[0] == (tree_effort.FEW, tree_effort.FEW)
    assert (tree_effort.FEWEST, tree_effort.FEWEST) in found
    assert found[-1] == (50_000, 30_000)
    assert found == sorted(found)
    assert len(set(found)) >= 4
    assert tree_effort.affordable(
        ensemble, sources=np.arange(COLUMNS), rows=9, background=7, budget=1e-9, sample=few
    ) == (9, 7)


def test_a_path_of_too_many_columns_for_packed_patterns_costs_more(monkeypatch) -> None:
    shallow, long = (
        ensembles.Ensemble(
            trees=(tree_compiled._comb(depth=depth),),
            offset=np.zeros(1),
            encode=np.asarray,
            columns=tuple(range(70)),
        )
        for depth in (60, 70)
    )
    sample = pilot_of(np.random.default_rng(0).normal(size=(2, 70, 2_000)))
    sizes = {"sources": np.arange(70), "rows": 50_000, "background": 30_000, "sample": sample}
    monkeypatch.setattr(tree_compiled, "SMALL_WORK", -1)
    within = [tree_effort.affordable(one, budget=1.0, **sizes) for one in (shallow, long)]
    assert tree_effort.FEWEST < within[1][0] < within[0][0] < 50_000
    work = [tree_effort.look(one, **sizes) for one in (shallow, long)]
    assert [w.pilot.times.sum() for w in work] == [53, 63 * tree_effort.LONG]
    # a leaf of many columns costs more than one whose patterns have a table, so that a few of them are not overlooked
    many = np.full(2, 8_000.0)
    wide = tree_effort._seconds(
        np.array([16.0, 40.0]), many, many, rows=10_000, background=10_000, outputs=1, meeting=0.05
    )
    assert wide[1] > 5 * wide[0]


def test_columns_of_which_one_at_most_holds_cost_what_their_patterns_do() -> None:
    """Sizes alone said twenty times too much of a chain of indicators, and cut rows that would all have fitted."""
    rng = np.random.default_rng(0)
    level = rng.integers(40, size=3_000)
    X = pd.DataFrame(np.eye(40)[level], columns=[f"is_{j}" for j in range(40)])
    y = rng.normal(size=40)[level] + rng.normal(scale=0.1, size=3_000)
    model = RandomForestRegressor(n_estimators=2, random_state=0).fit(X, y)
    ensemble = ensembles.parse(subject_of(model, X, y).model)
    sizes = {"sources": np.arange(40), "rows": 3_000, "background": 3_000}
    chain, even = (
        tree_effort.look(ensemble, sample=pilot_of(both), **sizes)
        for both in (ensemble.encode(X)[None].repeat(2, axis=0), rng.normal(0.5, size=(2, 40, 3_000)))
    )
    assert even.seconds(3_000, 3_000) > 5 * chain.seconds(3_000, 3_000)


def test_a_pilot_counts_the_distinct_patterns_of_real_rows(forest, rows) -> None:
    ensemble = ensembles.parse(subject_of(forest, *rows).model)
    encoded = ensemble.encode(rows[0])
    some = {"rows": 1_000, "background": 500}
    work = tree_effort.look(
        ensemble, sources=np.arange(COLUMNS), sample=lambda: (encoded[:, :1_000], encoded[:, 1_000:]), **some
    )
    one, leaves = ensemble.trees[0], np.flatnonzero(ensemble.trees[0].left < 0)
    for leaf in leaves[:: len(leaves) // 20]:
        failed = tree_pilot._failed(
            one, int(leaf), tree_pilot._parents(one), encoded, sources=np.arange(COLUMNS)
        )
        ours, theirs, meeting = tree_pilot._counted(failed, 1_000)
        mine, others = (np.unique(part, axis=1) for part in (failed[:, :1_000], failed[:, 1_000:]))
        assert (ours[0], theirs[0]) == (mine.shape[1], others.shape[1])
        assert (ours[1], theirs[2]) == (
            np.unique(failed[:, :1_000:2], axis=1).shape[1],
            np.unique(failed[:, 1_000::4], axis=1).shape[1],
        )
        whole = (mine.astype(int).T @ others.astype(int) == 0).mean()
        assert meeting == pytest.approx(whole, abs=0.05)
        assert (~failed).all(axis=0).sum() == (
            ensembles.leaf_of(one, ensembles.decide(one, encoded)) == leaf
        ).sum()
    same = work.pilot.patterns(rows=1_000, background=500)
    np.testing.assert_allclose(same[0], work.pilot.ours[:, 0])
    np.testing.assert_allclose(same[1], work.pilot.theirs[:, 0])
    more = [work.pilot.patterns(rows=n, background=n) for n in (1, 10, 100, 1_000, 10_000, 10**9)]
    for few, many in pairwise(more):
        assert (few[0] <= many[0]).all()
        assert (few[1] <= many[1]).all()
    assert (more[-1][0] <= 2**work.pilot.columns).all()


def test_a_hundred_rows_of_many_leaves_are_worth_the_kernels() -> None:
    """NumPy takes as long for a leaf as for a thousand rows: 100 rows of a default forest took eight times as long."""
    tree = tree_compiled._comb(depth=99)
    few, many = (
        ensembles.Ensemble(
            trees=(tree,) * size, offset=np.zeros(1), encode=np.asarray, columns=tuple(range(99))
        )
        for size in (200, 4_000)
    )
    assert not tree_compiled.worthwhile(few, rows=200)
    assert tree_compiled.worthwhile(many, rows=200)
    assert tree_compiled.SMALL_WORK > 100 * 4_000 * 200


def test_look_ups_have_no_budget(forest, rows) -> None:
    """A few deep leaves among many others do not decide: what look-ups take is not cut."""
    X, y = rows
    model = RandomForestRegressor(n_estimators=20, max_depth=9, random_state=0).fit(X, y)
    for made, cut in ((forest, True), (model, False)):
        ensemble = ensembles.parse(subject_of(made, X, y).model)
        sizes = {"sources": np.arange(COLUMNS), "rows": 10**5, "background": 10**5}
        sample = sampled(ensemble, X)
        assert tree_effort.look(ensemble, sample=sample, **sizes) is not None
        found = tree_effort.affordable(ensemble, budget=1e-6, sample=sample, **sizes)
        assert (found != (10**5, 10**5)) == cut


def test_rows_that_the_budget_does_not_reach_for_are_left_out_and_that_is_said(
    forest, rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows
    monkeypatch.setattr(tree_effort, "FEWEST", 200)
    monkeypatch.setattr(tree_effort, "FEW", 200)
    monkeypatch.setattr(tree_effort, "PER_SECOND", 1e-9)
    made = [
        compute(forest, X, y, config=Config(segments=["c0 < 0"]), builders=BUILDERS[:3], background=X)
        for _ in range(2)
    ]
    found = made[0].attributions
    assert found.method.exact
    assert judge(made[0])[0] == "complete"
    assert (len(found.rows), found.method.params["background_rows"]) == (200, 200)
    assert found.method.params["background_given"] == N
    codes = [c.code for c in made[0].caveats]
    assert {"rows_within_budget", "rows_sampled", "background_sampled"} <= set(codes)
    sums = found.values.sum(axis=1) + found.base_values
    np.testing.assert_allclose(sums[:, 0], forest.predict(X.iloc[found.rows]), rtol=1e-9)
    np.testing.assert_array_equal(found.values, made[1].attributions.values)
    monkeypatch.undo()
    whole = compute(forest, X, y, config=Config(), builders=(), background=X)
    assert len(whole.attributions.rows) == N
    assert not {"rows_within_budget", "rows_sampled"} & {c.code for c in whole.caveats}


def test_what_is_one_for_all_rows_is_reckoned_for_each_block(forest, rows) -> None:
    ensemble = ensembles.parse(subject_of(forest, *rows).model)
    sizes = {"sources": np.arange(COLUMNS), "rows": N, "background": N, "sample": sampled(ensemble, rows[0])}
    whole, parts = (tree_effort.look(ensemble, held=held, **sizes) for held in (False, True))
    n, block = tree_compiled.ROWS_AT_ONCE, tree_compiled.SMALL_BLOCK
    assert (whole.block, parts.block) == (n, block)
    assert parts.deep(n, 10_000) == pytest.approx(n // block * parts.deep(block, 10_000))
    assert whole.deep(2 * n, 10_000) == pytest.approx(2 * whole.deep(n, 10_000))
    assert whole.deep(n, 10_000) < parts.deep(n, 10_000)


def test_blocks_of_many_rows_are_not_begun_beyond_the_budget(forest, rows) -> None:
    subject = subject_of(forest, *rows)
    assert prepared.prepare(subject, rows=10**7, budget=0.01) is None
    assert prepared.prepare(subject, rows=10**7) is not None


def test_exact_interactions_of_deep_trees_give_way_to_estimates(
    rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows
    model = RandomForestClassifier(n_estimators=3, random_state=0).fit(X, y > 0)
    builders = tuple(b for b in BUILDERS if b.name == "interactions")

    def method() -> bool:
        made = compute(model, X[:300], y[:300] > 0, config=Config(), builders=builders, background=X[:300])
        return bool(next(a.meta["exact"] for a in made.artifacts if a.name == "interactions"))

    assert method()
    monkeypatch.setattr(tree_interactions, "MOST_PAIR_ENTRIES", 1_000)
    assert not method()


def test_the_explainer_tells_the_rows_that_it_reaches(forest, rows) -> None:
    subject = subject_of(forest, *rows)
    assert tree.TREE.rows_within(subject, budget=60.0) == N
    assert tree.TREE.rows_within(subject, budget=1e-9) == tree_effort.FEW
    given = tree.TREE.explain(subject, config=Config(budget=60.0), seeds=Seeds(0))
    assert "background_given" not in given.method.params
