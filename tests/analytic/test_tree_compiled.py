"""The compiled tree engine against the NumPy one, in every way a leaf can be handled."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from tree_kit import hand_made, random_tree

from explain_step.cli import cli
from explain_step.explainers import (
    ensembles,
    ensembles_sklearn,
    tree,
    tree_batches,
    tree_codes,
    tree_compiled,
    tree_path_dependent,
)
from explain_step.explainers.ensembles import Ensemble

CELLS = np.array([-np.inf, -2.0, -1.0, 0.0, 5e-324, 0.25, 1.0, 5.0, np.inf, np.nan])
GRID = np.array([-np.inf, -1.0, -5e-324, 0.0, 0.5, 1.0, np.inf])


def case(seed: int, *, columns: int, depth: int, outputs: int = 1, trees: int = 4, rows: int = 40):
    """Return an ensemble, rows and background with equal values and thresholds, NaN, infinities, denormals."""
    rng = np.random.default_rng(seed)
    grown = [
        random_tree(rng, columns=columns, depth=depth, outputs=outputs, thresholds=GRID) for _ in range(trees)
    ]
    drawn = (rng.choice(CELLS, size=(columns, size)) for size in (rows, 60))
    return hand_made(grown, columns=columns, outputs=outputs), *drawn


def compiled(ensemble: Ensemble, rows, background, **options) -> np.ndarray:
    """Return the compiled values, of shape (n, columns, outputs)."""
    used, places = np.unique(ensemble.columns, return_inverse=True)
    parts = tree_compiled.shapley_values(
        ensemble, rows, background, places=places, n_used=len(used), **options
    )
    return np.concatenate(list(parts)).transpose(0, 2, 1)


def numpy_values(ensemble: Ensemble, rows, background) -> np.ndarray:
    assert not tree_compiled.worthwhile(ensemble, rows=rows.shape[1] + background.shape[1])
    return tree.interventional(
        ensemble, rows, background, sources=ensemble.columns, n_features=len(ensemble.columns)
    )[0]


def path_dependent_numpy(ensemble: Ensemble, rows, background) -> np.ndarray:
    assert background is None
    return tree_path_dependent.path_dependent(
        ensemble, rows, sources=ensemble.columns, n_features=len(ensemble.columns)
    )[0]


SHAPES = [
    {"columns": 4, "depth": 6},
    {"columns": 12, "depth": 11},  # leaves that are too deep for a group
    {"columns": 12, "depth": 11, "outputs": 3},
    {"columns": 20, "depth": 7},  # more columns than a table row holds
    {"columns": 24, "depth": 15, "trees": 1},  # pairs of patterns
    {"columns": 20, "depth": 10, "outputs": 2},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", [1, 2])
def test_both_engines_agree(shape, seed):
    ensemble, rows, background = case(seed, **shape)
    values = compiled(ensemble, rows, background)
    np.testing.assert_allclose(values, numpy_values(ensemble, rows, background), atol=1e-12)
    assert np.abs(values).max() > 0.01
    np.testing.assert_array_equal(tree_compiled.predict(ensemble, rows), ensembles.predict(ensemble, rows))


@pytest.mark.parametrize("shape", [s for s in SHAPES if s["depth"] < 15], ids=str)
def test_path_dependent_values_are_those_of_numpy(shape):
    ensemble, rows, _ = case(3, **shape)
    wanted, base = tree_path_dependent.path_dependent(
        ensemble, rows, sources=ensemble.columns, n_features=len(ensemble.columns)
    )
    values = compiled(ensemble, rows, None)
    np.testing.assert_allclose(values, wanted, atol=1e-12)
    np.testing.assert_allclose(values.sum(axis=1) + base, ensembles.predict(ensemble, rows), atol=1e-12)


def test_a_forest_of_deep_leaves_and_vectors():
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(300, 13))
    target = np.digitize(numbers[:, :5].sum(axis=1) + numbers[:, 5] * numbers[:, 6], [-1, 1])
    model = RandomForestClassifier(3, random_state=0).fit(numbers, target)
    ensemble = ensembles_sklearn.parse(model, names=ensembles.root_of(model)[1])
    rows = ensemble.encode(numbers[:30])
    values = compiled(ensemble, rows, ensemble.encode(numbers))
    np.testing.assert_allclose(values, numpy_values(ensemble, rows, ensemble.encode(numbers)), atol=1e-12)


def test_tables_and_pairs_give_a_deep_leaf_the_same_values():
    from explain_step.explainers import tree_deep
    from explain_step.explainers.tree_quadrature import quadrature

    rng = np.random.default_rng(0)
    patterns = np.unique(rng.integers(0, 1 << 14, 200))
    others = rng.integers(0, 1 << 14, 500) | 0x2D5B
    share, worth = np.zeros(tree_deep.SLOTS), np.empty(8 << 14)
    counts = np.zeros((2, tree_deep.SLOTS), np.int32)
    theirs, shares = tree_deep._shares(others, 14, counts)
    assert not counts.any()
    assert shares.sum() == pytest.approx(1.0)
    table, pairs = np.empty((len(patterns), 14)), np.empty((len(patterns), 14))
    tree_deep._table_units(table, patterns, theirs, shares, 14, share, worth, False, quadrature())
    tree_deep._pair_units(pairs, patterns, theirs, shares, 14, quadrature())
    np.testing.assert_allclose(table, pairs, atol=1e-14)
    assert np.abs(table).max() > 0


def test_columns_of_more_thresholds_than_short_codes_hold(monkeypatch):
    ensemble, rows, background = case(5, columns=4, depth=6)
    wanted = compiled(ensemble, rows, background)
    monkeypatch.setattr(tree_codes, "MOST_SHORT", 3)
    flat = tree_codes.flatten(ensemble, places=np.arange(4))
    assert tree_codes.encode(flat, rows).codes.dtype == np.uint32
    assert compiled(ensemble, rows, background).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("number", [0, 1, 3, 4, 30, 512, 513])
def test_codes_are_the_number_of_thresholds_below_a_value_plus_one(number):
    rng = np.random.default_rng(number)
    thresholds = np.unique([*CELLS[:-1], *rng.normal(size=number)])[:number]
    values = np.concatenate([CELLS[:-1], -CELLS[:-1], rng.normal(size=2000), thresholds])
    wanted = (thresholds[None, :] < values[:, None]).sum(axis=1) + 1
    found = tree_codes._number_codes(values, thresholds, dtype=np.uint16)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("depth", [6, 10], ids=["threads share rows", "threads share trees"])
def test_batches_of_trees_and_threads_change_no_bit(monkeypatch, depth):
    ensemble, rows, background = case(6, columns=9, depth=depth, trees=40)
    assert tree_compiled.prepare(ensemble, rows, places=np.arange(9), n_used=9).deep is (depth == 10)
    wanted = compiled(ensemble, rows, background, threads=1)
    assert compiled(ensemble, rows, background, threads=4).tobytes() == wanted.tobytes()
    monkeypatch.setattr(tree_compiled, "ROWS_AT_ONCE", 1024)
    if depth == 6:  # with deep leaves the order of sums depends on batches, a constant
        monkeypatch.setattr(tree_batches, "BATCH_ENTRIES", 5000)
    many = np.tile(rows, 60)
    for threads in (1, 3):
        found = compiled(ensemble, many, background, threads=threads)
        assert found[-rows.shape[1] :].tobytes() == wanted.tobytes()


def test_a_set_without_categories_sends_every_code_the_same_way():
    rule = ensembles.CategorySplit(left=np.zeros(0, dtype=np.bool_), other_left=True)
    stump = ensembles.frozen_tree(
        left=[1, -1, -1], right=[2, -1, -1], column=[0, -1, -1], threshold=[np.nan] * 3, outputs=(0,),
        missing_left=[0] * 3, values=[[0], [2], [6]], cover=[2, 1, 1], categories={0: rule},
    )  # fmt: skip
    ensemble, codes = hand_made([stump], columns=1), np.array([[-3.0, -0.5, 0.0, 0.5, 7.0]])
    assert compiled(ensemble, codes, np.full((1, 1), np.nan)).ravel().tolist() == [-4.0] * 5


@pytest.mark.parametrize("values", [compiled, path_dependent_numpy], ids=["compiled", "numpy"])
def test_branches_that_no_training_weight_reached_have_no_share(values):
    ensemble = tree_compiled._comb(depth=3)
    ensemble = hand_made([ensembles.replace(ensemble, cover=np.array([4.0, 4, 0, 0, 0, 0, 0]))], columns=3)
    found = values(ensemble, np.ones((3, 1)), None)
    # column 0 alone leads away from the leaf 1 that all training rows reached, and into branches of no share
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(), 6.0 - 1.0, atol=1e-12)


def test_a_tree_with_too_long_a_path_does_not_send_the_others_to_numpy(monkeypatch):
    monkeypatch.setattr(tree_compiled, "SMALL_WORK", -1)
    rng = np.random.default_rng(0)
    grown = [random_tree(rng, columns=40, depth=6, outputs=1, thresholds=GRID) for _ in range(3)]
    ensemble = hand_made([grown[0], tree_compiled._comb(depth=70), *grown[1:]], columns=70)
    fit, others = tree_compiled.parted(ensemble, places=np.arange(70))
    assert (fit.trees, others.trees) == (tuple(grown), ensemble.trees[1:2])
    numpys, add = [], tree.add_tree
    monkeypatch.setattr(
        tree, "add_tree", lambda out, one, *a, **k: (numpys.append(one), add(out, one, *a, **k))
    )
    rows = rng.normal(size=(70, 5))
    values, base = tree.interventional(ensemble, rows, rows, sources=ensemble.columns, n_features=70)
    assert numpys == [others.trees[0]]
    monkeypatch.setattr(tree_compiled, "SMALL_WORK", 1 << 60)
    wanted, _ = tree.interventional(ensemble, rows, rows, sources=ensemble.columns, n_features=70)
    np.testing.assert_allclose(values, wanted, atol=1e-12)
    np.testing.assert_allclose(values.sum(axis=1) + base, ensembles.predict(ensemble, rows), atol=1e-12)


def test_the_engine_is_chosen_by_sizes_alone(monkeypatch):
    ensemble, *_ = case(1, columns=4, depth=6)
    assert not tree_compiled.worthwhile(ensemble, rows=1000)
    assert tree_compiled.worthwhile(ensemble, rows=100_000_000)
    monkeypatch.setattr(tree_compiled, "find_spec", lambda name: None)
    assert not tree_compiled.worthwhile(ensemble, rows=100_000_000)


def test_warm_compiles_and_says_what_is_missing(monkeypatch):
    done = CliRunner().invoke(cli, ["warm", "--json"], standalone_mode=False)
    assert done.return_value == 0
    assert json.loads(done.output)["compiled"] is True
    monkeypatch.setattr(tree_compiled, "find_spec", lambda name: None)
    without = CliRunner().invoke(cli, ["warm"], standalone_mode=False)
    assert without.return_value == 1
    assert "explain-step[fast]" in without.output
