"""Enumeration against the definition: by coalition, by pair of rows, and which of the two is taken."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_subjects import CONFIG, SEEDS, brute_force, subject_of

from explain_step import explainers
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import coalition_games, enumeration, masking, pair_games
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.masking import Clock
from explain_step.types import FloatArray, Subject

QUICK = settings(max_examples=40, deadline=None, derandomize=True)


def interacting(A: Any) -> Any:
    """Main effects, products of two and three columns, a step, and a column (the last) without effect."""
    return A[:, 0] * A[:, 1] * A[:, 2] + np.sin(A[:, 2]) + np.where(A[:, 3] > 0, A[:, 0], 0.3 * A[:, 1])


def network(seed: int, d: int, *, outputs: int = 1) -> Any:
    """Return a smooth function of d columns with interactions of all orders."""
    rng = np.random.default_rng(seed)
    inner, outer = rng.normal(size=(d, 6)), rng.normal(size=(6, outputs))
    return lambda A: np.tanh(np.asarray(A, dtype=float) @ inner) @ outer


def rows(n: int, d: int = 5, *, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(n, d))


def levels(n: int, d: int, *, most: int, seed: int) -> FloatArray:
    """Return a table whose columns have few values: rows agree in many of them, and some rows are equal."""
    return np.random.default_rng(seed).integers(0, most, size=(n, d)).astype(float)


def pool_of(subject: Subject) -> masking.Pool:
    return masking.pool(subject.model, subject.X, subject.background)


def by_pair(subject: Subject) -> coalition_games.Solved:
    return pair_games.values(pool_of(subject), end=subject.response.output, clock=Clock(600))


def test_enumeration_is_the_definition() -> None:
    X, B = rows(4), rows(6, seed=1)
    found = ENUMERATION.explain(subject_of(interacting, X, B), config=CONFIG, seeds=SEEDS)
    assert np.allclose(found.values[:, :, 0], brute_force(interacting, X, B), atol=1e-12)
    assert np.allclose(found.base_values[:, 0], interacting(B).mean(), atol=1e-12)


@QUICK
@given(
    seed=st.integers(0, 10_000),
    d=st.integers(1, 6),
    most=st.integers(1, 4),
    n=st.integers(1, 8),
    m=st.integers(1, 8),
    outputs=st.integers(1, 2),
)
def test_both_ways_give_the_values_of_the_definition(
    seed: int, d: int, most: int, n: int, m: int, outputs: int
) -> None:
    f = network(seed, d, outputs=outputs)
    X, B = levels(n, d, most=most, seed=seed), levels(m, d, most=most, seed=seed + 1)
    names = [f"out{k}" for k in range(outputs)]
    subject = subject_of(f, X, B, outputs=names)
    ways = (by_pair(subject), coalition_games.values(pool_of(subject), clock=Clock(600)))
    for k in range(outputs):
        truth = brute_force(lambda A, k=k: f(A)[:, k], X, B)
        for found in ways:
            assert np.allclose(found.values[:, :, k], truth, atol=1e-10)
            assert np.isclose(found.base[k], f(B)[:, k].mean())


def test_by_pair_columns_in_which_rows_agree_cost_nothing_however_many_they_are() -> None:
    """Thirty columns, of which each row differs from the background's rows in the first five at most."""
    rng = np.random.default_rng(3)
    X, B = np.full((6, 30), 2.0), np.full((9, 30), 2.0)
    X[:, :5], B[:, :5] = rng.integers(0, 3, (6, 5)), rng.integers(0, 3, (9, 5))
    X[:, 5:] += np.arange(25)
    B[:, 5:] += np.arange(25)
    f = network(1, 30)
    subject = subject_of(f, X, B)
    truth = brute_force(
        lambda A: f(np.hstack([A, np.tile(X[:1, 5:], (len(A), 1))]))[:, 0], X[:, :5], B[:, :5]
    )
    found = by_pair(subject)
    assert np.allclose(found.values[:, :5, 0], truth, atol=1e-12)
    assert not found.values[:, 5:].any()
    assert found.predicted <= 6 * 9 * 2**5


def test_more_varying_columns_than_coalitions_can_be_looked_at_are_exact_where_rows_agree() -> None:
    """Each row differs from each background row in 4 of 14 columns at most; 2^14 coalitions would be 16,384."""
    X, B = np.zeros((7, 14)), np.zeros((7, 14))
    for i in range(7):
        X[i, [i, i + 7]] = 1.0 + i
        B[i, [(i + 3) % 14, (2 * i + 5) % 14]] = -1.0 - i
    f = network(2, 14)
    subject = subject_of(f, X, B)
    assert int(pool_of(subject).varying().sum()) == 14
    found, caveats = explainers.explain(subject, config=CONFIG, seeds=SEEDS)
    assert found.method.name == "enumeration"
    assert found.method.exact
    assert not caveats
    for i in range(7):
        game = np.zeros(14)
        for j in range(7):
            columns = np.flatnonzero(X[i] != B[j])
            assert len(columns) <= 4

            def part(A: Any, b: FloatArray = B[j], columns: Any = columns) -> Any:
                whole = np.tile(b, (len(A), 1))
                whole[:, columns] = A
                return f(whole)[:, 0]

            game[columns] += brute_force(part, X[i : i + 1, columns], B[j : j + 1, columns])[0] / 7
        assert np.allclose(found.values[i, :, 0], game, atol=1e-12)


def test_frames_reach_the_model_as_they_were_given() -> None:
    def respond(frame: pd.DataFrame) -> Any:
        assert frame["city"].dtype == "category"
        assert frame["flag"].dtype == "boolean"
        assert str(frame["note"].dtype) in {"object", "str"}
        city = frame["city"].map({"a": 0.0, "b": 1.0, "c": 3.0}).astype(float).fillna(-1.0)
        return frame["x"] * (1 + city) + frame["flag"].astype("Float64").fillna(0.5).astype(float) * frame[
            "note"
        ].str.len().fillna(7.0).astype(float)

    whole = pd.DataFrame(
        {
            "x": [0.5, 0.5, 1.0, -1.0, 2.0, 0.5, 0.5],
            "city": pd.Categorical(["a", "b", None, "c", "a", "b", "a"]),
            "flag": pd.array([True, None, False, True, True, False, True], dtype="boolean"),
            "note": ["p", "pq", None, "p", "pqr", "p", "p"],
        }
    )
    subject = subject_of(respond, whole.head(4), whole.tail(3), on_frames=True)
    ways = (by_pair(subject), coalition_games.values(pool_of(subject), clock=Clock(600)))
    assert np.allclose(ways[0].values, ways[1].values, atol=1e-12)
    assert np.abs(ways[0].values).max() > 0.5


def test_by_pair_no_row_is_asked_twice_where_one_number_tells_rows_apart() -> None:
    seen: list[Any] = []

    def model(A: Any) -> Any:
        seen.append(np.asarray(A).copy())
        return network(0, 6)(A)

    X, B = levels(9, 6, most=2, seed=0), levels(11, 6, most=2, seed=1)
    subject = subject_of(model, X, B)
    pool = pool_of(subject)
    upper = pair_games.predictions(pool, most=10**6)
    seen.clear()
    found = pair_games.values(pool, end=subject.response.output, clock=Clock(600))
    asked = np.concatenate(seen[1:])  # the first call is the background
    assert len(np.unique(asked, axis=0)) == len(asked)
    assert found.predicted == len(asked) + len(B)
    assert upper is not None
    assert len(asked) < upper


def test_by_pair_rows_that_one_number_cannot_tell_apart_are_all_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, B = levels(5, 6, most=3, seed=4), levels(7, 6, most=3, seed=5)
    subject = subject_of(network(3, 6), X, B)
    once = by_pair(subject)
    monkeypatch.setattr(pair_games, "MOST_KEYS", 1)
    every = by_pair(subject)
    assert every.predicted - len(B) == pair_games.predictions(pool_of(subject), most=10**6)
    assert once.predicted < every.predicted
    assert np.allclose(once.values, every.values, atol=1e-14)


def test_the_way_with_fewer_predictions_is_taken() -> None:
    few_values = subject_of(interacting, levels(300, 5, most=2, seed=0))
    few_rows = subject_of(network(0, 9), rows(3, 9), rows(4, 9, seed=1))
    for subject, way in ((few_values, "coalition"), (few_rows, "pair")):
        found = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
        n, m = len(subject.X), len(subject.background)
        pairs = n * m if way == "pair" else n
        assert found.method.params["games"] == pairs


def test_by_coalition_equal_mixed_rows_are_predicted_once() -> None:
    X = levels(300, 5, most=2, seed=0)
    subject = subject_of(interacting, X)
    assert ENUMERATION.why_not(subject) is None
    found = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert found.method.params["predicted_rows"] <= 2**5 * 2**5 < 300 * 300
    assert np.allclose(found.values[:3, :, 0], brute_force(interacting, X[:3], X), atol=1e-12)


def test_too_many_columns_and_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(A: Any) -> Any:
        return A[:, 0]

    assert "20 varying columns" in str(ENUMERATION.why_not(subject_of(first, rows(5, 20))))
    assert "40 varying columns" in str(
        ENUMERATION.why_not(subject_of(first, rows(1, 40), rows(1, 40, seed=1)))
    )
    assert "2,000 rows" in str(ENUMERATION.why_not(subject_of(first, rows(2000, 4))))
    wide = np.tile(rows(5, 3), (1, 8))
    wide[:, 3:] = 1.0
    assert ENUMERATION.why_not(subject_of(first, wide)) is None, "constant columns cost nothing"
    monkeypatch.setattr(enumeration, "OUTPUTS", 100)
    many = subject_of(lambda A: np.tile(A[:, :1], 20), rows(5, 3), outputs=[f"o{k}" for k in range(20)])
    assert "more than 5 predicted rows" in str(ENUMERATION.why_not(many))


def test_a_single_column_needs_the_two_ends_only() -> None:
    def model(A: Any) -> Any:
        assert len(A) > 0, "a model may refuse to predict nothing"
        return np.exp(A[:, 0])

    X, B = rows(5, 1), rows(7, 1, seed=1)
    found = ENUMERATION.explain(subject_of(model, X, B), config=CONFIG, seeds=SEEDS)
    assert found.method.params["predicted_rows"] == len(B)
    assert np.allclose(found.values[:, 0, 0], np.exp(X[:, 0]) - np.exp(B[:, 0]).mean(), atol=1e-14)


def test_by_pair_too_many_pairs_for_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.zeros((40, 60))
    wide[:, 7], wide[:, 9] = np.arange(40), np.arange(40) % 3
    pool = pool_of(subject_of(network(0, 60), wide, wide[::-1] + 1.0 * (np.arange(60) == 7)))
    assert pair_games.predictions(pool, most=10**6) is not None, "columns that never vary take no memory"
    monkeypatch.setattr(pair_games, "CELLS", 40 * 40 * 2 - 1)
    assert pair_games.predictions(pool, most=10**6) is None


def test_a_model_that_is_too_slow_is_given_up_and_sampling_takes_over() -> None:
    def slow(A: Any) -> Any:
        time.sleep(0.002 * len(A) ** 0.5)
        return interacting(A)

    subject = subject_of(slow, rows(30), rows(40, seed=1))
    found, caveats = explainers.explain(subject, config=Config(budget=0.1), seeds=SEEDS)
    assert found.method.name == "permutation"
    codes = {c.code: c for c in caveats}
    assert "enumeration" in codes["explainer_fallback"].message
    assert codes["budget_cut"].degrades


def test_too_many_predictions_for_the_budget_are_not_begun() -> None:
    asked: list[int] = []

    def slow(A: Any) -> Any:
        asked.append(len(A))
        time.sleep(1e-4 * len(A))
        return interacting(A)

    subject = subject_of(slow, rows(60), rows(70, seed=1))
    asked.clear()
    with pytest.raises(NotApplicable, match=r"1 s are not enough for [0-9,]+ predicted rows"):
        ENUMERATION.explain(subject, config=Config(budget=1.0), seeds=SEEDS)
    assert sum(asked) < 9_000


def test_a_model_that_slows_down_on_the_way_is_given_up() -> None:
    asked: list[int] = []

    def tiring(A: Any) -> Any:
        asked.append(len(A))
        time.sleep(1e-4 * len(A) if sum(asked) > 2_000 else 0)
        return interacting(A)

    subject = subject_of(tiring, rows(60), rows(70, seed=1))
    asked.clear()
    with pytest.raises(NotApplicable, match="are not enough"):
        ENUMERATION.explain(subject, config=Config(budget=1.0), seeds=SEEDS)
    assert sum(asked) < 30 * 60 * 70
