"""Explainers that prepare once for many blocks of rows: the same values as in one go."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from tree_kit import hand_made, make_subject, random_tree

from explain_step.config import Config
from explain_step.explainers import prepared, tree_compiled
from explain_step.explainers.linear import LINEAR
from explain_step.explainers.tree import TREE
from explain_step.seeds import Seeds

GRID = np.array([-np.inf, -1.0, 0.0, 0.5, 1.0, np.inf])


@pytest.mark.parametrize(("columns", "depth", "outputs"), [(6, 6, 1), (12, 11, 3), (20, 7, 2)])
def test_held_tables_give_the_same_bits_as_tables_made_anew(columns: int, depth: int, outputs: int) -> None:
    rng = np.random.default_rng(columns)
    trees = [
        random_tree(rng, columns=columns, depth=depth, outputs=outputs, thresholds=GRID) for _ in range(5)
    ]
    ensemble = hand_made(trees, columns=columns, outputs=outputs)
    cells = np.append(np.linspace(-2, 2, 9), np.nan)
    rows, background = (rng.choice(cells, size=(columns, n)) for n in (90, 50))
    places = np.arange(columns)
    whole = np.concatenate(
        list(tree_compiled.shapley_values(ensemble, rows, background, places=places, n_used=columns))
    )
    ready = tree_compiled.prepare(ensemble, background, places=places, n_used=columns)
    assert ready.held
    blocks = [np.concatenate(list(tree_compiled.values_of(ready, rows[:, a : a + 40]))) for a in (0, 40, 80)]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(300, 4)), columns=list("abcd"))
    return X, X["a"].to_numpy() + X["b"].to_numpy() ** 2


@pytest.mark.parametrize(
    ("model", "explainer"), [(HistGradientBoostingRegressor(max_iter=8), TREE), (LinearRegression(), LINEAR)]
)
def test_blocks_of_a_model_have_the_values_of_one_go(model, explainer, data) -> None:
    X, y = data
    subject = make_subject(model.fit(X, y), X, X[:80])
    whole = explainer.explain(subject, config=Config(), seeds=Seeds(0))
    explain = prepared.prepare(subject.take(np.arange(20)), rows=len(X))
    assert explain is not None
    found = [explain(X[a : a + 128].reset_index(drop=True)) for a in range(0, len(X), 128)]
    np.testing.assert_allclose(
        np.concatenate([f.values for f in found]), whole.values, rtol=1e-12, atol=1e-14
    )
    np.testing.assert_array_equal(np.concatenate([f.base_values for f in found]), whole.base_values)


def test_what_cannot_be_explained_exactly_is_not_prepared(data) -> None:
    X, y = data
    wide = pd.concat([X.add_suffix(str(k)) for k in range(5)], axis=1)  # too many columns to enumerate
    subject = make_subject(KNeighborsRegressor().fit(wide, y), wide, wide[:50])
    assert prepared.prepare(subject, rows=1_000_000) is None
