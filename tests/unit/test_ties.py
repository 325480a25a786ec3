"""Rounding noise in a model's answers decides nothing: neither which rows are drawn nor what ranks above what."""

from __future__ import annotations

import numpy as np
import pytest

from explain_step.artifacts.metric_influence import area_influence
from explain_step.explainers.sampling import output_order, spread_rows, stratified_partners
from explain_step.metrics import auc
from explain_step.ties import dense_ranks, just_above, score_ranks

NOISE = 4e-16


@pytest.fixture
def answers() -> np.ndarray:
    """The mean of 30 trees of few leaves: many rows with equal answers, of either sign."""
    rng = np.random.default_rng(0)
    return rng.choice(rng.normal(size=200), size=5_000)


def noisy(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 9])
    return values * (1 + NOISE * rng.choice([-1, 0, 1], size=values.shape))


def _forest(values: np.ndarray) -> np.ndarray:
    """Probabilities between 0.0001 and 0.9999, as of leaves that are not pure."""
    return 1e-4 + (1 - 2e-4) / (1 + np.exp(-3 * values))


@pytest.mark.parametrize("seed", range(20))
def test_noise_changes_no_rank_and_draws_no_other_row(answers: np.ndarray, seed: int) -> None:
    other = noisy(answers, seed)
    assert (other != answers).sum() > 1_000
    assert (dense_ranks(other) == dense_ranks(answers)).all()
    both, changed = (np.column_stack([v, -v]) for v in (answers, other))
    changed[:, 1] *= 1 + NOISE  # as wide as the first but for noise
    assert (output_order(changed) == output_order(both)).all()
    for values in (both, changed):
        drawn = spread_rows(values, 300, rng=np.random.default_rng(1))
        partners = stratified_partners(values, rows=50, draws=4, rng=np.random.default_rng(1))
        assert (drawn == spread_rows(both, 300, rng=np.random.default_rng(1))).all()
        assert (partners == stratified_partners(both, rows=50, draws=4, rng=np.random.default_rng(1))).all()
    hit = np.random.default_rng(2).random(5_000) < 0.3
    for score, changed in ((answers, other), (_forest(answers), noisy(_forest(answers), seed))):
        assert auc(hit, changed) == auc(hit, score)
        assert (area_influence(hit, changed) == area_influence(hit, score)).all()
    median = np.median(answers)
    assert ((other > just_above(median)) == (answers > just_above(median))).all()


def test_numbers_that_differ_stay_apart_however_small_or_large() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    sure = 1 / (1 + np.exp(-rng.normal(scale=12, size=3_000)))
    assert (score_ranks(sure) == np.unique(sure, return_inverse=True)[1]).all()
    hits = rng.random(3_000) < 0.2
    assert auc(hits, sure) == pytest.approx(roc_auc_score(hits, sure), abs=1e-14)
    for values in (
        np.exp(rng.normal(scale=80, size=3_000)),
        rng.normal(size=3_000),
        np.arange(3_000) * 1e-300,
    ):
        assert (dense_ranks(values) == np.unique(values, return_inverse=True)[1]).all()
        hit = rng.random(3_000) < 0.2
        assert auc(hit, values) == pytest.approx(roc_auc_score(hit, values), abs=1e-14)
    assert dense_ranks(np.array([])).tolist() == []
    assert dense_ranks(np.array([7.0])).tolist() == [0]
    assert dense_ranks(np.array([0.0, -0.0, 5e-324, -5e-324])).tolist() == [1, 1, 2, 0]
