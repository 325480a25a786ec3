"""The axioms of Shapley values on generated trees and rows, and what must not change the numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_kit import both_engines, enumerated, hand_made, predict_frame, random_tree

from explain_step.explainers import ensembles, tree, tree_compiled, tree_tables

GRID = np.array([-np.inf, -1.0, 0.0, 0.5, 1.0, np.inf])
CELLS = np.array([-np.inf, -2.0, -1.0, 0.0, 0.25, 1.0, 5.0, np.inf, np.nan])
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=30, deadline=None)


_engine = both_engines()


def case(seed: int, *, columns: int = 4, outputs: int = 1, trees: int = 3, depth: int = 5):
    """Return an ensemble, rows and background; equal values and thresholds, NaN and infinities are common."""
    rng = np.random.default_rng(seed)
    grown = [
        random_tree(rng, columns=columns, depth=depth, outputs=outputs, thresholds=GRID) for _ in range(trees)
    ]
    rows, background = (rng.choice(CELLS, size=(columns, size)) for size in (5, 9))
    return hand_made(grown, columns=columns, outputs=outputs), rows, background


def values_of(ensemble, rows, background, **options):
    return tree.interventional(
        ensemble, rows, background, sources=ensemble.columns, n_features=len(rows), **options
    )


@quick
@given(seed=seeds, outputs=st.integers(1, 3))
def test_values_are_those_of_the_enumeration(seed, outputs):
    ensemble, rows, background = case(seed, outputs=outputs)
    values, base = values_of(ensemble, rows, background)
    wanted, wanted_base = enumerated(
        predict_frame(ensemble), *(pd.DataFrame(part.T).add_prefix("c") for part in (rows, background))
    )
    np.testing.assert_allclose(values, wanted, atol=1e-12)
    np.testing.assert_allclose(base, wanted_base, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, merged=st.integers(0, 9), most=st.integers(0, 9))
def test_efficiency_however_leaves_are_grouped(seed, merged, most):
    ensemble, rows, background = case(seed, columns=8, depth=7)
    before = tree.tree_groups.MERGED_BITS, tree._fits
    tree.tree_groups.MERGED_BITS, tree._fits = merged, lambda k, _: k <= most
    try:
        values, base = values_of(ensemble, rows, background)
    finally:
        tree.tree_groups.MERGED_BITS, tree._fits = before
    np.testing.assert_allclose(values.sum(axis=1) + base, ensembles.predict(ensemble, rows), atol=1e-12)
    np.testing.assert_allclose(values, values_of(ensemble, rows, background)[0], atol=1e-12)


@quick
@given(seed=seeds)
def test_dummy_a_column_that_nothing_splits_on_has_no_value(seed):
    ensemble, rows, background = case(seed, columns=3)
    more = np.vstack([rows, rows[:1]]), np.vstack([background, background[:1]])
    values, _ = tree.interventional(ensemble, *more, sources=range(3), n_features=4)
    assert not values[:, 3].any()
    np.testing.assert_array_equal(values[:, :3], values_of(ensemble, rows, background)[0])


@quick
@given(seed=seeds)
def test_symmetry_columns_with_swapped_roles_have_swapped_values(seed):
    ensemble, rows, background = case(seed)
    order = np.array([2, 0, 3, 1])
    swapped = hand_made(
        [
            ensembles.replace(grown, column=np.where(grown.left < 0, -1, np.argsort(order)[grown.column]))
            for grown in ensemble.trees
        ],
        columns=4,
    )
    values, _ = values_of(swapped, rows[order], background[order])
    np.testing.assert_allclose(values, values_of(ensemble, rows, background)[0][:, order], atol=1e-13)


@quick
@given(seed=seeds)
def test_linearity_the_values_of_a_sum_are_the_sum_of_values(seed):
    ensemble, rows, background = case(seed)
    parts = [values_of(hand_made([t], columns=4), rows, background)[0] for t in ensemble.trees]
    np.testing.assert_allclose(values_of(ensemble, rows, background)[0], sum(parts), atol=1e-13)


@quick
@given(seed=seeds)
def test_columns_of_one_source_are_one_player(seed):
    ensemble, rows, background = case(seed)
    values, base = tree.interventional(ensemble, rows, background, sources=[0, 1, 1, 0], n_features=2)
    np.testing.assert_allclose(values.sum(axis=1) + base, ensembles.predict(ensemble, rows), atol=1e-12)
    together = (values_of(ensemble, rows, background)[0][:, [0, 3]].sum(axis=1), values[:, 0])
    alone = np.where(np.isin(np.arange(4), [0, 3])[:, None, None], rows[:, :, None], background[:, None, :])
    rest = np.where(np.isin(np.arange(4), [1, 2])[:, None, None], rows[:, :, None], background[:, None, :])
    f = [
        ensembles.predict(ensemble, mixed.reshape(4, -1)).reshape(5, 9, 1).mean(axis=1)
        for mixed in (alone, rest)
    ]
    wanted = (f[0] - base + ensembles.predict(ensemble, rows) - f[1]) / 2  # Shapley value of two players
    np.testing.assert_allclose(together[1], wanted, atol=1e-12)


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_thread_count_block_size_and_other_rows_change_no_bit(seed):
    ensemble, rows, background = case(seed, columns=6, trees=20, depth=6)
    many = np.random.default_rng(seed).choice(CELLS, size=(6, 1500))
    many[:, :5] = rows
    values, base = values_of(ensemble, many, background, threads=1)
    again, _ = values_of(ensemble, many, background, threads=5)
    assert values.tobytes() == again.tobytes()
    few, few_base = values_of(ensemble, rows, background)
    assert few.tobytes() == values[:5].tobytes()
    assert few_base.tobytes() == base.tobytes()
    whole = tree.ROWS_AT_ONCE, tree_compiled.ROWS_AT_ONCE
    tree.ROWS_AT_ONCE = tree_compiled.ROWS_AT_ONCE = 1024
    try:
        assert values_of(ensemble, many, background)[0].tobytes() == values.tobytes()
    finally:
        tree.ROWS_AT_ONCE, tree_compiled.ROWS_AT_ONCE = whole


@quick
@given(k=st.integers(1, 14), seed=seeds)
def test_tables_equal_pairs_and_sum_to_the_indicator(k, seed):
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(1 << k, 0.1))
    full = (1 << k) - 1
    some = np.append(rng.integers(0, 1 << k, size=20), [0, full])
    sums = tree_tables.subset_sums(share[None, :], k=k)
    values = tree_tables.values_at(sums, some, game=0, k=k)
    assert values.tobytes() == tree_tables.dense_tables(sums, k=k)[0][:, some].tobytes()
    pairs = tree_tables.paired_tables(some.astype(np.uint16), np.arange(1 << k, dtype=np.uint16), share, k=k)
    np.testing.assert_allclose(values, pairs, atol=1e-13)
    np.testing.assert_allclose(values.sum(axis=0), (some == full) - share[-1], atol=1e-13)


def test_inputs_are_not_changed():
    ensemble, rows, background = case(3)
    copies = rows.copy(), background.copy()
    values_of(ensemble, rows, background)
    np.testing.assert_array_equal(rows, copies[0])
    np.testing.assert_array_equal(background, copies[1])
