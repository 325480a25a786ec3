"""Permutation sampling against values known from the definition."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_subjects import CONFIG, SEEDS, subject_from, subject_of

from explain_step import explainers
from explain_step.config import Config
from explain_step.errors import PredictionFailed
from explain_step.explainers import masking, planning, walks
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.permutation import PERMUTATION
from explain_step.explainers.planning import plan
from explain_step.explainers.sampling import spread_rows, stratified_partners
from explain_step.seeds import Seeds, caller_state_kept
from explain_step.types import Response


def interacting(A: Any) -> Any:
    """Main effects, products of two and three columns, a step, and a column (the last) without effect."""
    return A[:, 0] * A[:, 1] * A[:, 2] + np.sin(A[:, 2]) + np.where(A[:, 3] > 0, A[:, 0], 0.3 * A[:, 1])


def rows(n: int, d: int = 5, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_additive_functions_are_recovered_from_every_background_row() -> None:
    X, B = rows(20, 6), rows(35, 6, seed=1)
    parts = (np.sin, np.square, np.abs, np.exp, lambda v: v > 0, lambda v: 0 * v)
    found = PERMUTATION.explain(
        subject_of(lambda A: sum(g(A[:, j]) for j, g in enumerate(parts)), X, B), config=CONFIG, seeds=SEEDS
    )
    truth = np.stack([g(X[:, j]) - np.mean(g(B[:, j])) for j, g in enumerate(parts)], axis=1)
    assert np.allclose(found.values[:, :, 0], truth, atol=1e-10)
    assert np.abs(found.values[:, 5]).max() < 1e-15, "a column without effect gets nothing but rounding"


def test_estimates_agree_with_exact_values_within_their_standard_errors() -> None:
    X, B = rows(40, 6), rows(500, 6, seed=1)
    subject = subject_of(lambda A: interacting(A) + np.tanh(A.sum(axis=1)), X, B)
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    scores = []
    for seed in range(5):
        found = PERMUTATION.explain(subject, config=CONFIG, seeds=Seeds(seed))
        assert found.standard_error is not None
        scores.append(((found.values - exact.values) / found.standard_error).ravel())
        assert np.allclose(found.base_values, exact.base_values, atol=1e-12)
    z = np.concatenate(scores)
    assert np.abs(z).max() < 5
    assert (np.abs(z) < 4).mean() > 0.999
    assert 0.92 < (np.abs(z) < 1.96).mean() <= 1.0
    assert abs(z.mean()) < 0.1, "unbiased"


@pytest.mark.parametrize("pairs", [8, 24])
def test_few_pairs_still_give_honest_standard_errors(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    monkeypatch.setattr(planning, "MAX_PAIRS", pairs)
    subject = subject_of(interacting, rows(40), rows(200, seed=1))
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    z = []
    for seed in range(10):
        found = PERMUTATION.explain(subject, config=CONFIG, seeds=Seeds(seed))
        assert found.method.params["pairs"] == pairs
        known = found.standard_error > 0
        z.append((found.values - exact.values)[known] / found.standard_error[known])
    covered = (np.abs(np.concatenate(z)) < 1.96).mean()
    assert 0.88 < covered < 0.995


def test_values_sum_exactly_and_constant_columns_get_exactly_zero() -> None:
    X, B = rows(50, 6), rows(300, 6, seed=1)
    B[:, 5] = 1.0
    X[:25, 5] = 1.0
    subject = subject_of(lambda A: interacting(A) + A[:, 5] * A[:, 0], X, B)
    found = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert np.allclose(found.values.sum(axis=1) + found.base_values, subject.response.output, atol=1e-12)
    assert (found.values[:25, 5] == 0).all()
    assert (found.standard_error[:25, 5] == 0).all()
    assert (found.values[25:, 5] != 0).all()
    assert (found.values[:, 4] == 0).all()


def test_several_outputs_are_explained_together() -> None:
    X, B = rows(15), rows(60, seed=1)
    both = subject_of(lambda A: np.stack([interacting(A), A[:, 0]], axis=1), X, B, outputs=("a", "b"))
    found = PERMUTATION.explain(both, config=CONFIG, seeds=SEEDS)
    assert found.values.shape == (15, 5, 2)
    assert np.allclose(found.values[:, 0, 1], X[:, 0] - B[:, 0].mean(), atol=1e-12)
    assert np.allclose(found.values.sum(axis=1) + found.base_values, both.response.output, atol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 7])
def test_a_small_background_is_used_completely(m: int) -> None:
    X, B = rows(12), rows(m, seed=1)
    subject = subject_of(interacting, X, B)
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    found = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert found.method.params["pairs"] % m == 0
    bound = 5 * found.standard_error + 1e-10
    assert (np.abs(found.values - exact.values) <= bound).mean() > 0.99


def test_results_do_not_depend_on_the_size_of_the_prediction_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(interacting, rows(30), rows(80, seed=1))
    whole = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    monkeypatch.setattr(masking, "CALL_ROWS", 97)
    monkeypatch.setattr(walks, "CHUNK_VALUES", 50)
    pieces = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert (whole.values == pieces.values).all()
    assert (whole.standard_error == pieces.standard_error).all()


def test_the_seed_decides_and_the_callers_generator_is_left_alone() -> None:
    subject = subject_of(interacting, rows(20), rows(30, seed=1))
    with caller_state_kept():
        np.random.seed(1)  # noqa: NPY002 - what shap draws from
        before = np.random.get_state()[1].copy()  # noqa: NPY002 - the caller's generator
        first = PERMUTATION.explain(subject, config=CONFIG, seeds=Seeds(1))
        assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
        np.random.random(5)  # noqa: NPY002
        again = PERMUTATION.explain(subject, config=CONFIG, seeds=Seeds(1))
    assert (first.values == again.values).all()
    assert (first.values != PERMUTATION.explain(subject, config=CONFIG, seeds=Seeds(2)).values).any()


def test_mixed_rows_keep_every_dtype_and_missing_values() -> None:
    X = pd.DataFrame(
        {
            "number": [1.0, np.nan, 3.0, 4.0],
            "count": [1, 2, 3, 4],
            "text": ["a", "b", None, "a"],
            "level": pd.Categorical(["u", "v", "u", "w"], categories=["w", "v", "u"]),
            "flag": [True, False, True, True],
            "when": pd.to_datetime(["2020-01-01", "2021-01-01", "2022-01-01", None]),
            "maybe": pd.array([1, None, 3, 4], dtype="Int64"),
        }
    )
    seen: list[pd.DataFrame] = []

    def respond(given: pd.DataFrame) -> Response:
        seen.append(given)
        level = given["level"].cat.codes.to_numpy()
        text = (given["text"] == "a").to_numpy(dtype=float)
        number = np.where(given["number"].isna(), -1.0, given["number"])
        return Response(output=(number * given["flag"] + level * text).to_numpy(dtype=float)[:, None])

    subject = subject_from(respond, X.iloc[:2].reset_index(drop=True), X.iloc[1:].reset_index(drop=True))
    before = subject.X.copy(), subject.background.copy()
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    sampled = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert all((given.dtypes == X.dtypes).all() for given in seen)
    assert (np.abs(sampled.values - exact.values) <= 5 * sampled.standard_error + 1e-9).all()
    pd.testing.assert_frame_equal(subject.X, before[0])
    pd.testing.assert_frame_equal(subject.background, before[1])


def test_the_plan_is_fixed_by_counts_and_stays_within_them() -> None:
    few = plan(n=10, m=500, columns=5, width=5, outputs=1, max_rows=None)
    assert (few.rows, few.pairs) == (10, planning.MAX_PAIRS)
    for n, columns, outputs in ((714, 12, 1), (50_000, 14, 1), (2_000, 100, 3), (3_000, 5_000, 1)):
        chosen = plan(n=n, m=1000, columns=columns, width=columns, outputs=outputs, max_rows=None)
        predicted = chosen.rows * chosen.pairs * 2 * (columns - 1)
        assert predicted <= planning.EVALUATIONS * 1.05
        assert chosen.pairs >= walks.MIN_PAIRS
        assert planning.MIN_ROWS <= chosen.rows <= planning.DEFAULT_ROWS
    assert plan(n=50_000, m=9, columns=3, width=3, outputs=1, max_rows=123).rows == 123


def test_the_budget_cuts_rows_and_pairs_and_says_so() -> None:
    def slow(A: Any) -> Any:
        time.sleep(1e-5 * len(A))
        return interacting(A)

    subject = subject_of(slow, rows(200), rows(300, seed=1))
    found, caveats = explainers.explain(
        subject, config=Config(budget=0.5), seeds=SEEDS, explainers=(PERMUTATION,)
    )
    params = found.method.params
    assert (params["rows"], params["pairs"]) != (params["rows_planned"], params["pairs_planned"])
    assert found.method.budget is not None
    assert [c.degrades for c in caveats if c.code == "budget_cut"] == [True]
    shown = subject.response.output[found.rows]
    assert np.allclose(found.values.sum(axis=1) + found.base_values, shown, atol=1e-12)
    assert (np.diff(found.rows) > 0).all()


def test_even_the_shortest_budget_explains_some_rows() -> None:
    subject = subject_of(interacting, rows(500), rows(300, seed=1))
    found = PERMUTATION.explain(subject, config=Config(budget=1e-9), seeds=SEEDS)
    assert walks.SURE_ROWS <= len(found.rows) < 500
    assert found.method.params["pairs"] == walks.MIN_PAIRS


def test_predict_errors_and_bad_answers_are_named() -> None:
    def refuses(A: Any) -> Any:
        if len(A) and (A[:, 0] != A[:, 1]).any():
            raise RuntimeError("x0 must equal x1")
        return A[:, 0]

    X = np.repeat(rows(20, 1), 2, axis=1)
    with pytest.raises(PredictionFailed, match=r"RuntimeError.*x0 must equal x1"):
        PERMUTATION.explain(subject_of(refuses, X), config=CONFIG, seeds=SEEDS)

    def sometimes_nan(A: Any) -> Any:
        return np.where(A[:, 0] == A[:, 1], A[:, 0], np.nan)

    with pytest.raises(PredictionFailed, match="finite"):
        PERMUTATION.explain(subject_of(sometimes_nan, X), config=CONFIG, seeds=SEEDS)


def test_partners_cover_the_background_evenly_and_rows_are_drawn_evenly() -> None:
    output = np.random.default_rng(0).normal(size=(50, 1))
    partners = stratified_partners(output, rows=4000, draws=10, rng=np.random.default_rng(1))
    share = np.bincount(partners.ravel(), minlength=50) / partners.size
    assert np.abs(share - 1 / 50).max() < 0.003
    drawn = np.bincount(
        np.concatenate([spread_rows(output, 15, rng=np.random.default_rng(s)) for s in range(2000)]),
        minlength=50,
    )
    assert np.abs(drawn / 2000 - 15 / 50).max() < 0.05
    assert len(np.unique(spread_rows(output, 15, rng=np.random.default_rng(3)))) == 15
