"""Shapley interaction values of trees against the definition, shap and XGBoost, by both engines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tree_kit import (
    attributions,
    both_engines,
    hand_made,
    make_subject,
    mixed_frame,
    one_thread,
    predict_frame,
    random_tree,
)

from explain_step.errors import NotApplicable
from explain_step.explainers import ensembles, tree, tree_compiled, tree_interactions
from explain_step.explainers.ensembles import Ensemble
from explain_step.seeds import caller_state_kept

CELLS = np.array([-np.inf, -2.0, -1.0, 0.0, 5e-324, 0.25, 1.0, 5.0, np.inf, np.nan])
GRID = np.array([-np.inf, -1.0, -5e-324, 0.0, 0.5, 1.0, np.inf])
X, Y = mixed_frame(300)
NUMBERS = X[["a", "b"]].assign(flag=X.flag.astype(float), zone=X.zone.cat.codes.astype(float))
seeds = st.integers(0, 2**32 - 1)


_engine = both_engines()
_one_thread = one_thread()


def matrix_of(ensemble: Ensemble, rows, background, **options) -> np.ndarray:
    return tree_interactions.interaction_values(
        ensemble, rows, background, sources=ensemble.columns, n_features=len(ensemble.columns), **options
    )


def enumerated_pairs(
    predict: Callable[[pd.DataFrame], np.ndarray], X: pd.DataFrame, background: pd.DataFrame
) -> np.ndarray:
    """Return the entries off the diagonal of shap's matrix (n, d, d, k) from all 2^d coalitions."""
    n, m, d = len(X), len(background), X.shape[1]
    both = pd.concat([X, background], ignore_index=True)
    ours, theirs = np.repeat(np.arange(n), m), n + np.tile(np.arange(m), n)
    worth = {}
    for size in range(d + 1):
        for coalition in itertools.combinations(range(d), size):
            parts = {
                name: both[name].take(ours if i in coalition else theirs).array
                for i, name in enumerate(X.columns)
            }
            worth[frozenset(coalition)] = predict(pd.DataFrame(parts)).reshape(n, m, -1).mean(axis=1)
    out = np.zeros((n, d, d, worth[frozenset()].shape[1]))
    for i, j in itertools.permutations(range(d), 2):
        others = [c for c in worth if i not in c and j not in c]
        for c in others:
            weight = math.factorial(len(c)) * math.factorial(d - len(c) - 2) / (2 * math.factorial(d - 1))
            out[:, i, j] += weight * (worth[c | {i, j}] - worth[c | {i}] - worth[c | {j}] + worth[c])
    return out


def grown(seed: int, *, columns: int, depth: int, outputs: int = 1, trees: int = 3, rows: int = 6):
    rng = np.random.default_rng(seed)
    some = [
        random_tree(rng, columns=columns, depth=depth, outputs=outputs, thresholds=GRID) for _ in range(trees)
    ]
    drawn = (rng.choice(CELLS, size=(columns, size)) for size in (rows, 9))
    return hand_made(some, columns=columns, outputs=outputs), *drawn


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix * (1 - np.eye(matrix.shape[1]))[:, :, None]


@settings(max_examples=12, deadline=None)
@given(seed=seeds, outputs=st.integers(1, 2))
def test_interactions_are_those_of_the_enumeration(seed, outputs):
    ensemble, rows, background = grown(seed, columns=5, depth=6, outputs=outputs)
    matrix = matrix_of(ensemble, rows, background)
    frames = (pd.DataFrame(part.T).add_prefix("c") for part in (rows, background))
    wanted = enumerated_pairs(predict_frame(ensemble), *frames)
    np.testing.assert_allclose(off_diagonal(matrix), wanted, atol=1e-12)
    values, _ = tree.interventional(ensemble, rows, background, sources=range(5), n_features=5)
    np.testing.assert_allclose(matrix.sum(axis=2), values, atol=1e-12)
    np.testing.assert_array_equal(matrix, matrix.transpose(0, 2, 1, 3))


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_path_dependent_interactions_are_those_of_the_cover_game(seed):
    """The cover game of one tree: columns outside the coalition go both ways, weighted by training cover."""
    ensemble, rows, _ = grown(seed, columns=4, depth=5, trees=1)
    one = ensemble.trees[0]
    left = ensembles.decide(one, rows)

    def worth(node: int, row: int, known: frozenset[int]) -> float:
        if one.left[node] < 0:
            return float(one.values[node, 0])
        sides = int(one.left[node]), int(one.right[node])
        if int(one.column[node]) in known:
            return worth(sides[0] if left[one.split[node], row] else sides[1], row, known)
        return sum(one.cover[side] / one.cover[node] * worth(side, row, known) for side in sides)

    matrix = matrix_of(ensemble, rows, None)
    for row in range(rows.shape[1]):
        for i, j in itertools.combinations(range(4), 2):
            wanted = 0.0
            rest = [c for c in range(4) if c not in (i, j)]
            for size in range(3):
                for chosen in itertools.combinations(rest, size):
                    c = frozenset(chosen)
                    weight = math.factorial(size) * math.factorial(2 - size) / (2 * math.factorial(3))
                    wanted += weight * (
                        worth(0, row, c | {i, j})
                        - worth(0, row, c | {i})
                        - worth(0, row, c | {j})
                        + worth(0, row, c)
                    )
            assert matrix[row, i, j, 0] == pytest.approx(wanted, abs=1e-12)


SHAPES = [
    {"columns": 12, "depth": 10, "trees": 2},  # leaves that are too deep for a group
    {"columns": 20, "depth": 9, "outputs": 2},
    {"columns": 16, "depth": 13, "trees": 1},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_engines_agree_on_deep_trees_with_and_without_a_background(shape, monkeypatch):
    ensemble, rows, background = grown(1, **shape, rows=40)
    for against in (background, None):
        monkeypatch.setattr(tree_compiled, "SMALL_WORK", -1)
        compiled = matrix_of(ensemble, rows, against)
        monkeypatch.setattr(tree_compiled, "SMALL_WORK", 1 << 60)
        np.testing.assert_allclose(compiled, matrix_of(ensemble, rows, against), atol=1e-12)
        assert np.abs(off_diagonal(compiled)).max() > 0.001


def test_threads_and_blocks_change_no_bit(monkeypatch):
    ensemble, rows, background = grown(6, columns=9, depth=8, trees=18, rows=40)
    wanted = matrix_of(ensemble, rows, background, threads=1)
    assert matrix_of(ensemble, rows, background, threads=4).tobytes() == wanted.tobytes()
    monkeypatch.setattr(tree_compiled, "ROWS_AT_ONCE", 1024)
    many = matrix_of(ensemble, np.tile(rows, 30), background)
    assert many[: rows.shape[1]].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("classes", [2, 3])
def test_path_dependent_interactions_equal_xgboosts_own_and_shaps(classes):
    xgboost, shap = pytest.importorskip("xgboost"), pytest.importorskip("shap")
    y = np.digitize(Y, [0, 1.5]) if classes == 3 else (Y > 1).astype(int)
    model = xgboost.XGBClassifier(n_estimators=8, max_depth=5, n_jobs=1).fit(NUMBERS, y)
    rows = NUMBERS[:40]
    own = model.get_booster().predict(xgboost.DMatrix(rows, nthread=1), pred_interactions=True)
    own = own.reshape(len(rows), -1, 5, 5).transpose(0, 2, 3, 1)[:, :-1, :-1]
    subject = make_subject(model, rows, NUMBERS[100:160], output="margin")
    ensemble = ensembles.parse(subject.model)
    sources = tree.raw_sources(subject.model, ensemble)
    mine = tree_interactions.interaction_values(
        ensemble, ensemble.encode(rows), None, sources=sources, n_features=4
    )
    np.testing.assert_allclose(mine, own, atol=1e-5)
    if classes == 2:
        with caller_state_kept():
            np.random.seed(0)  # noqa: NPY002 - what shap draws from
            theirs = shap.TreeExplainer(model).shap_interaction_values(rows)
        np.testing.assert_allclose(mine[..., 0], theirs, atol=1e-5)


def test_double_precision_interactions_equal_shaps():
    shap = pytest.importorskip("shap")
    # No repeated values: on rounded ones shap 0.51 takes other branches than predict, by its own additivity.
    rows = pd.DataFrame(np.random.default_rng(1).normal(size=(300, 5)), columns=list("abcde"))
    target = rows.a * rows.b + rows.c + Y
    model = HistGradientBoostingRegressor(max_iter=15).fit(rows, target)
    subject = make_subject(model, rows[:30], rows[100:160])
    ensemble = ensembles.parse(subject.model)
    mine = matrix_of(ensemble, ensemble.encode(rows[:30]), None)
    with caller_state_kept():
        np.random.seed(0)  # noqa: NPY002 - what shap draws from
        theirs = shap.TreeExplainer(model).shap_interaction_values(rows[:30])
    np.testing.assert_allclose(mine[..., 0], theirs, atol=1e-6)


def test_derived_columns_of_one_raw_column_interact_as_one():
    frame = X[["a", "b", "town", "flag"]].assign(town=X.town.astype(object).where(X.town.notna(), "none"))
    frame["a"] = frame.a.fillna(0.0)
    front = make_column_transformer((OneHotEncoder(), ["town"]), remainder="passthrough")
    forest = RandomForestClassifier(6, random_state=0, min_samples_leaf=2)
    model = make_pipeline(front, forest).fit(frame, np.where(Y > 1, "yes", "no"))
    subject = make_subject(model, frame[:5], frame[100:120])
    pairs = list(itertools.combinations(range(4), 2))
    found = tree_interactions.of_pairs(subject, pairs)
    wanted = enumerated_pairs(subject.model.predict, subject.X, subject.background)
    for (i, j), interaction in zip(pairs, found, strict=True):
        np.testing.assert_allclose(interaction, 2 * wanted[:, i, j], atol=1e-12)
    assert np.abs(found).max() > 0.01
    some = tree_interactions.of_pairs(subject, [(3, 1)])
    np.testing.assert_allclose(some[0], found[pairs.index((1, 3))], atol=1e-15)


def test_columns_that_no_path_has_both_of_do_not_interact():
    stumps = [
        ensembles.frozen_tree(
            left=[1, -1, -1], right=[2, -1, -1], column=[c, -1, -1], threshold=[0.0] * 3,
            missing_left=[0] * 3, values=[[0.0], [0.1], [0.7]], cover=[2, 1, 1], outputs=(0,),
        )
        for c in range(3)
    ]  # fmt: skip
    ensemble = hand_made(stumps, columns=3)
    rows, background = np.random.default_rng(0).normal(size=(2, 3, 20))
    assert not off_diagonal(matrix_of(ensemble, rows, background)).any()


def test_paths_of_too_many_columns_and_too_much_work_are_refused(monkeypatch):
    deep = hand_made([tree_compiled._comb(depth=18)], columns=18)
    rows = np.random.default_rng(0).normal(size=(18, 5))
    with pytest.raises(NotApplicable, match="columns, more than"):
        matrix_of(deep, rows, rows)
    model = RandomForestClassifier(3, random_state=0).fit(NUMBERS, Y > 1)
    subject = make_subject(model, NUMBERS[:9], NUMBERS[9:30])
    monkeypatch.setattr(tree_interactions, "MOST_WORK", 100)
    monkeypatch.setattr(tree_interactions, "MOST_WORK_WITHOUT_NUMBA", 100)
    with pytest.raises(NotApplicable, match="leaves times rows"):
        tree_interactions.of_pairs(subject, [(0, 1)])


def test_the_artifact_holds_the_exact_interactions_and_says_so():
    from explain_step.artifacts import interactions
    from explain_step.config import Config
    from explain_step.seeds import Seeds

    model = RandomForestClassifier(5, random_state=0, max_depth=4).fit(NUMBERS, Y > 1)
    subject = make_subject(model, NUMBERS[:60], NUMBERS[100:180])
    section = interactions.build(subject, attributions(subject), config=Config(), seeds=Seeds(0))
    main = section.artifacts[0]
    assert not section.caveats
    assert "exact for the trees" in main.meta["method"]
    assert (main.meta["rows"], main.meta["contexts"]) == (60, 80)
    names = list(NUMBERS.columns)
    for row in main.table.itertuples():
        pair = names.index(row.feature_a), names.index(row.feature_b)
        wanted = np.sqrt((tree_interactions.of_pairs(subject, [pair]) ** 2).mean())
        assert row.strength == pytest.approx(wanted, rel=1e-12)
    assert (main.table["ci_low"] <= main.table["strength"]).all()
