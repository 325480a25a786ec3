"""Trees with many distinct columns on a path: values of every engine against the formulas of one leaf."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import tree_kit

from explain_step.explainers import (
    ensembles,
    ensembles_sklearn,
    tree,
    tree_compiled,
    tree_interactions,
    tree_path_dependent,
)
from explain_step.explainers.ensembles import Ensemble, Tree

LONG = [
    *({"columns": k} for k in (8, 16, 17, 31, 32, 33, 62, 63, 64, 65)),
    {"columns": 20, "again": 30},
    {"columns": 63, "again": 7},
    {"columns": 200, "again": 20},
]


def chain(*, columns: int, again: int = 0, seed: int = 0, outputs: int = 2) -> Tree:
    """Return a tree whose longest path has every column, and ``again`` of them twice; rows near zero pass most."""
    rng = np.random.default_rng(seed)
    order = [*range(columns), *rng.integers(columns, size=again)]
    rng.shuffle(order)
    inner = 2 * np.arange(len(order))
    left, right, column = (np.full(2 * len(order) + 1, -1) for _ in range(3))
    threshold, cover = np.zeros(len(left)), np.full(len(left), 1000.0)
    for node, own in zip(inner, order, strict=True):
        share, leftwards = rng.uniform(0.7, 0.99), rng.random() < 0.5
        ends, goes_on = node + 1, node + 2
        left[node], right[node] = (goes_on, ends) if leftwards else (ends, goes_on)
        column[node], threshold[node] = own, rng.uniform(1.0, 2.0) * (1 if leftwards else -1)
        cover[goes_on], cover[ends] = cover[node] * share, cover[node] * (1 - share)
    return ensembles.frozen_tree(
        left=left, right=right, column=column, threshold=threshold, missing_left=rng.integers(2, size=len(left)),
        values=rng.normal(size=(len(left), outputs)), cover=cover, outputs=tuple(range(outputs)),
    )  # fmt: skip


def case(*, columns: int, again: int = 0, rows: int = 13):
    """Return two chains, rows and background with missing values."""
    rng = np.random.default_rng(columns)
    trees = [chain(columns=columns, again=again, seed=seed) for seed in (1, 2)]
    drawn = [rng.normal(size=(columns, size)) for size in (rows, 9)]
    for some in drawn:
        some[rng.random(some.shape) < 0.02] = np.nan
    return tree_kit.hand_made(trees, columns=columns, outputs=2), *drawn


def leaves(one: Tree, *parts: np.ndarray) -> Iterator[tuple[int, dict[int, tuple[float, list[np.ndarray]]]]]:
    """Yield each leaf with the cover ratio of each column on its path and which rows of each part pass the column."""
    goes = [ensembles.decide(one, part) for part in parts]
    stack = [(0, {})]
    while stack:
        node, path = stack.pop()
        if one.left[node] < 0:
            yield node, path
            continue
        column, whole = int(one.column[node]), one.cover[node]
        ratio, passed = path.get(column, (1.0, [True] * len(parts)))
        for child, side in ((one.left[node], True), (one.right[node], False)):
            share = one.cover[child] / whole if whole > 0 else 0.0
            mine = [p & (g[one.split[node]] == side) for p, g in zip(passed, goes, strict=True)]
            stack.append((int(child), {**path, column: (ratio * share, mine)}))


def path_dependent_by_coalitions(ensemble: Ensemble, rows: np.ndarray) -> np.ndarray:
    """Return the values by the sizes of coalitions: the product over a leaf's other columns, as a polynomial in their number."""
    found = np.zeros((rows.shape[1], len(ensemble.columns), len(ensemble.offset)))
    for one in ensemble.trees:
        for node, path in leaves(one, rows):
            k = len(path)
            weights = np.array([1 / (k * math.comb(k - 1, size)) for size in range(k)])[:, None]
            for own, (ratio, (passed,)) in path.items():
                by_size = np.zeros((k, rows.shape[1]))
                by_size[0] = 1.0
                for other, (theirs, (holds,)) in path.items():
                    if other != own:
                        by_size[1:], by_size[0] = (
                            by_size[1:] * theirs + by_size[:-1] * holds,
                            by_size[0] * theirs,
                        )
                unit = (by_size * weights).sum(axis=0) * (passed - ratio)
                found[:, own] += unit[:, None] * one.values[node]
    return found


def interventional_by_pairs(ensemble: Ensemble, rows: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return the values from every row, background row and leaf: `tree_tables` has the formula."""
    found = np.zeros((rows.shape[1], len(ensemble.columns), len(ensemble.offset)))
    for one in ensemble.trees:
        for node, path in leaves(one, rows, background):
            columns = list(path)
            ours, theirs = (np.array([path[c][1][part] for c in columns]) for part in (0, 1))
            for row, other in np.ndindex(rows.shape[1], background.shape[1]):
                only, lost = ~theirs[:, other], ~ours[:, row]
                if (only & lost).any():
                    continue
                a, b = int(only.sum()), int(lost.sum())
                choose = math.comb(a + b, a) * background.shape[1]
                for place, column in enumerate(columns):
                    if only[place] or lost[place]:
                        weight = 1 / (a * choose) if only[place] else -1 / (b * choose)
                        found[row, column] += weight * one.values[node]
    return found


def compiled(ensemble: Ensemble, rows: np.ndarray, background: np.ndarray | None, **options) -> np.ndarray:
    """Return the compiled values, of shape (n, columns, outputs)."""
    every = np.arange(len(ensemble.columns))
    parts = tree_compiled.shapley_values(
        ensemble, rows, background, places=every, n_used=len(every), **options
    )
    return np.concatenate(list(parts)).transpose(0, 2, 1)


def values(ensemble: Ensemble, rows: np.ndarray, background: np.ndarray | None) -> np.ndarray:
    """Return the values by the engine that is chosen."""
    return tree.values(ensemble, rows, background, sources=ensemble.columns, n_features=len(ensemble.columns))


@pytest.mark.parametrize("shape", LONG, ids=str)
def test_path_dependent_values_are_those_of_coalitions_by_size(monkeypatch, shape):
    ensemble, rows, _ = case(**shape)
    wanted = path_dependent_by_coalitions(ensemble, rows)
    numpys, base = tree_path_dependent.path_dependent(
        ensemble, rows, sources=ensemble.columns, n_features=len(ensemble.columns)
    )
    np.testing.assert_allclose(numpys, wanted, atol=1e-13)
    for work in (-1, 1 << 60):  # compiled, and not
        monkeypatch.setattr(tree_compiled, "SMALL_WORK", work)
        found = values(ensemble, rows, None)
        np.testing.assert_allclose(found, wanted, atol=1e-13)
        np.testing.assert_allclose(found.sum(axis=1) + base, ensembles.predict(ensemble, rows), atol=1e-12)
    assert np.abs(wanted).min(axis=(0, 2)).max() > 1e-4


@pytest.mark.parametrize("shape", LONG, ids=str)
@pytest.mark.parametrize("engine", ["compiled", "numpy"])
def test_interventional_values_are_those_of_pairs_of_rows(monkeypatch, shape, engine):
    monkeypatch.setattr(tree_compiled, "SMALL_WORK", -1 if engine == "compiled" else 1 << 60)
    ensemble, rows, background = case(**shape)
    found = values(ensemble, rows, background)
    wanted = interventional_by_pairs(ensemble, rows, background)
    np.testing.assert_allclose(found, wanted, atol=1e-13)
    base = ensembles.predict(ensemble, background).mean(axis=0)
    np.testing.assert_allclose(found.sum(axis=1) + base, ensembles.predict(ensemble, rows), atol=1e-12)
    if shape["columns"] <= 63:
        np.testing.assert_allclose(compiled(ensemble, rows, background), wanted, atol=1e-13)
    else:
        with pytest.raises(ensembles.NotApplicable, match="more than 63 columns"):
            compiled(ensemble, rows, background)


@pytest.mark.parametrize("columns", [16, 33, 70])
def test_threads_and_blocks_of_rows_change_no_bit(monkeypatch, columns):
    ensemble, rows, _ = case(columns=columns, rows=77)
    wanted = compiled(ensemble, rows, None, threads=1)
    assert compiled(ensemble, rows, None, threads=3).tobytes() == wanted.tobytes()
    for some in (1, 7, 8, 33):
        assert compiled(ensemble, rows[:, :some], None).tobytes() == wanted[:some].tobytes()
    monkeypatch.setattr(tree_compiled, "ROWS_AT_ONCE", 1024)
    many = compiled(ensemble, np.tile(rows, 30), None)
    assert many[-77:].tobytes() == wanted.tobytes()
    numpys = values(ensemble, rows, None)
    monkeypatch.setattr(tree_path_dependent, "NUMBERS_AT_ONCE", 1)
    np.testing.assert_array_equal(values(ensemble, rows, None), numpys)


@pytest.mark.parametrize("columns", [5, 20, 70])
def test_branches_without_training_weight_have_no_share(monkeypatch, columns):
    one = chain(columns=columns, again=4)
    cover = one.cover.copy()
    cover[2 * (columns // 2) :] = 0.0
    leaf = ensembles.frozen_tree(
        left=[-1], right=[-1], column=[-1], threshold=[0], missing_left=[0], values=[[3.0, 4.0]], cover=[9],
        outputs=(0, 1),
    )  # fmt: skip
    ensemble = tree_kit.hand_made(
        [leaf, ensembles.replace(one, cover=cover), leaf], columns=columns, outputs=2
    )
    rows = np.random.default_rng(0).normal(size=(columns, 9))
    wanted = path_dependent_by_coalitions(ensemble, rows)
    for work in (-1, 1 << 60):
        monkeypatch.setattr(tree_compiled, "SMALL_WORK", work)
        np.testing.assert_allclose(values(ensemble, rows, None), wanted, atol=1e-13)


def test_splits_on_categories_are_walked():
    rng = np.random.default_rng(0)
    one = chain(columns=18)
    rule = ensembles.CategorySplit(left=rng.random(5) < 0.5, other_left=True)
    inner = np.flatnonzero(one.left >= 0)
    one = ensembles.replace(one, categories={int(node): rule for node in inner if one.column[node] % 2})
    ensemble = tree_kit.hand_made([one], columns=18, outputs=2)
    rows = rng.normal(size=(18, 21))
    rows[1::2] = rng.integers(-1, 6, size=(9, 21))
    rows[3, ::4] = np.nan
    wanted = path_dependent_by_coalitions(ensemble, rows)
    np.testing.assert_allclose(compiled(ensemble, rows, None), wanted, atol=1e-13)


@pytest.fixture(scope="module")
def wide_forest():
    """Return a weighted forest of three classes grown to the end on 60 columns, its ensemble and data."""
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    X, y = make_classification(
        2000, 60, n_informative=40, n_redundant=0, n_classes=3, flip_y=0.2, random_state=0
    )
    weight = np.random.default_rng(0).integers(1, 4, size=len(y))
    forest = RandomForestClassifier(6, max_features=2, random_state=0).fit(X, y, sample_weight=weight)
    return forest, ensembles_sklearn.parse(forest, names=ensembles.root_of(forest)[1]), X


def test_a_forest_with_vectors_at_its_leaves_has_the_values_of_shap(wide_forest, monkeypatch):
    shap = pytest.importorskip("shap")
    forest, ensemble, X = wide_forest
    rows = ensemble.encode(X[:20])
    wanted = shap.TreeExplainer(forest, feature_perturbation="tree_path_dependent").shap_values(X[:20])
    for work in (-1, 1 << 60):
        monkeypatch.setattr(tree_compiled, "SMALL_WORK", work)
        found = values(ensemble, rows, None)
        np.testing.assert_allclose(found, np.asarray(wanted), atol=1e-12)
    np.testing.assert_array_equal(tree_compiled.predict(ensemble, rows), ensembles.predict(ensemble, rows))


def test_its_interventional_values_are_the_same_in_both_engines(wide_forest):
    _, ensemble, X = wide_forest
    rows, background = ensemble.encode(X[:40]), ensemble.encode(X[500:560])
    numpys = values(ensemble, rows, background)
    np.testing.assert_allclose(compiled(ensemble, rows, background), numpys, atol=1e-13)
    assert np.abs(numpys).max() > 0.001


def test_its_exact_interactions_are_refused_in_words(wide_forest):
    forest, _, X = wide_forest
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(60)])
    subject = tree_kit.make_subject(forest, frame.head(30), frame.tail(30))
    with pytest.raises(ensembles.NotApplicable, match="more than tables of interactions hold"):
        tree_interactions.of_pairs(subject, [(0, 1)])
