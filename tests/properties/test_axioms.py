"""The axioms that define Shapley values, on random games: efficiency, dummy, symmetry, linearity."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_subjects import CONFIG, SEEDS, subject_of

from explain_step.explainers.base import Explainer
from explain_step.explainers.coalition_games import shapley
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.permutation import PERMUTATION
from explain_step.types import FloatArray

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
EXPLAINERS: tuple[Explainer, ...] = (ENUMERATION, PERMUTATION)
seeds = st.integers(0, 10_000)
columns = st.integers(2, 5)


def network(seed: int, d: int) -> Any:
    """Return a random smooth function of d columns with interactions of all orders."""
    rng = np.random.default_rng(seed)
    inner, outer = rng.normal(size=(d, 6)), rng.normal(size=6)
    return lambda A: np.tanh(A @ inner) @ outer


def draw(seed: int, d: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed + 1)
    return rng.normal(size=(4, d)).round(1), rng.normal(size=(9, d)).round(1)


def values(explainer: Explainer, function: Any, X: FloatArray, B: FloatArray) -> FloatArray:
    return explainer.explain(subject_of(function, X, B), config=CONFIG, seeds=SEEDS).values[:, :, 0]


@QUICK
@given(seed=seeds, d=columns)
def test_efficiency(seed: int, d: int) -> None:
    f, (X, B) = network(seed, d), draw(seed, d)
    for explainer in EXPLAINERS:
        assert np.allclose(values(explainer, f, X, B).sum(axis=1), f(X) - f(B).mean(), atol=1e-10)


@QUICK
@given(seed=seeds, d=columns, data=st.data())
def test_dummy(seed: int, d: int, data: st.DataObject) -> None:
    idle = data.draw(st.integers(0, d - 1))
    f, (X, B) = network(seed, d - 1), draw(seed, d)
    for explainer in EXPLAINERS:
        found = values(explainer, lambda A: f(np.delete(A, idle, axis=1)), X, B)
        assert np.abs(found[:, idle]).max() <= (0 if explainer is PERMUTATION else 1e-12)


@QUICK
@given(seed=seeds, d=columns)
def test_symmetry(seed: int, d: int) -> None:
    """Two columns that enter in the same way, with the same values, have the same attribution."""
    f, (X, B) = network(seed, d - 1), draw(seed, d)
    X[:, 1], B[:, 1] = X[:, 0], B[:, 0]

    def twins(A: Any) -> Any:
        return f(np.column_stack([A[:, 0] + A[:, 1], A[:, 2:]]))

    found = values(ENUMERATION, twins, X, B)
    assert np.allclose(found[:, 0], found[:, 1], atol=1e-10)
    sampled = PERMUTATION.explain(subject_of(twins, X, B), config=CONFIG, seeds=SEEDS)
    error = sampled.standard_error
    assert error is not None
    gap = np.abs(sampled.values[:, 0] - sampled.values[:, 1])
    assert (gap <= 6 * (error[:, 0] + error[:, 1]) + 1e-9).all()


@QUICK
@given(seed=seeds, d=columns, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_linearity(seed: int, d: int, a: float, b: float) -> None:
    f, g, (X, B) = network(seed, d), network(seed + 7, d), draw(seed, d)
    both = values(ENUMERATION, lambda A: a * f(A) + b * g(A), X, B)
    apart = a * values(ENUMERATION, f, X, B) + b * values(ENUMERATION, g, X, B)
    assert np.allclose(both, apart, atol=1e-9)


@QUICK
@given(seed=seeds, d=columns, a=st.floats(0.1, 3), shift=st.floats(-5, 5))
def test_the_scale_of_the_output_is_the_scale_of_the_estimates(
    seed: int, d: int, a: float, shift: float
) -> None:
    f, (X, B) = network(seed, d), draw(seed, d)
    assert np.allclose(
        values(PERMUTATION, lambda A: a * f(A) + shift, X, B), a * values(PERMUTATION, f, X, B), atol=1e-8
    )


@QUICK
@given(game=st.lists(st.floats(-10, 10), min_size=16, max_size=16), order=st.permutations(range(4)))
def test_shapley_values_do_not_depend_on_how_players_are_numbered(
    game: list[float], order: list[int]
) -> None:
    values = np.array(game)
    position = np.arange(16)
    renamed = sum(((position >> j) & 1) << order[j] for j in range(4))
    other = np.empty(16)
    other[renamed] = values
    first = shapley(values.reshape(1, 16, 1))[0, :, 0]
    second = shapley(other.reshape(1, 16, 1))[0, :, 0]
    assert np.allclose(second[list(order)], first, atol=1e-9)
    assert np.isclose(first.sum(), values[15] - values[0], atol=1e-9)
