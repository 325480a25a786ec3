"""Control variates per column in permutation sampling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_subjects import CONFIG, SEEDS, subject_of

from explain_step.explainers import planning
from explain_step.explainers.adjusting import adjust, background_bins
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.masking import pool
from explain_step.explainers.permutation import PERMUTATION
from explain_step.explainers.walks import Sample


def bins_of(values, bins):
    return background_bins(values, pd.factorize(values)[0], bins=bins)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(40)[::-1] / 3,
        np.arange(40)[::-1],
        pd.array([*range(39, 0, -1), None], dtype="Int64"),
        pd.date_range("2020-01-01", periods=40).to_numpy()[::-1],
        pd.date_range("2020-01-01", periods=40, tz="UTC").array[::-1],
    ],
    ids=["float", "int", "nullable", "time", "time with zone"],
)
def test_numbers_and_times_are_binned_by_size(values):
    found = bins_of(values, 4)
    assert np.bincount(found).tolist() == [10, 10, 10, 10]
    inside = np.arange(39)
    assert (np.diff(found[inside]) <= 0).all()


def test_missing_numbers_are_in_the_last_bin_and_equal_values_in_one():
    assert bins_of(np.array([np.nan, 1.0, 2.0, np.nan]), 2).tolist() == [1, 0, 0, 1]
    assert bins_of(np.r_[np.zeros(30), np.arange(1, 11)], 4).tolist() == [0] * 30 + [3] * 10


@pytest.mark.parametrize("kind", ["object", "category", "str"])
def test_levels_are_binned_by_frequency(kind):
    levels = pd.Series(["a"] * 3 + ["b"] * 30 + ["c"] * 15 + ["d"] * 2, dtype=kind)
    found = bins_of(levels.array, 4)
    assert len({found[5], found[35]}) == 2
    assert found[0] == found[49] == 3


def test_a_constant_column_has_one_bin():
    assert bins_of(np.ones(5), 3).tolist() == [0] * 5


def sample_of(function, *, n=30, m=101, pairs=6):
    rng = np.random.default_rng(0)
    subject = subject_of(function, rng.normal(size=(n, 3)), rng.normal(size=(m, 3)))
    store = pool(subject.model, subject.X, subject.background)
    partner = rng.integers(0, m, size=(n, pairs))
    if pairs % m == 0:
        partner = rng.permuted(np.tile(np.arange(m), (n, pairs // m)), axis=1)
    X, B = subject.X.to_numpy(), subject.background.to_numpy()
    # an additive function: the contributions are the same in every order
    parts = np.stack([X[:, None, j] * (j + 1) - B[partner][:, :, j] * (j + 1) for j in range(3)], axis=2)
    start = (B * [1, 2, 3]).sum(axis=1)[:, None]
    sample = Sample(rows=np.arange(n), partner=partner, contributions=parts[..., None])
    return sample, store, start, X


def linear(A):
    return A @ np.array([1.0, 2.0, 3.0])


def test_contributions_still_sum_to_the_output_minus_the_start_and_vary_less():
    sample, store, start, X = sample_of(linear)
    before = sample.contributions.copy()
    found, left = adjust(sample, pool=store, start=start, active=np.ones((30, 3), dtype=bool))
    assert left.mean() == pytest.approx(start.mean())
    expected = linear(X)[:, None] - left[sample.partner][:, :, 0]
    np.testing.assert_allclose(found.contributions.sum(axis=2)[..., 0], expected)
    assert found.contributions.var(axis=1).mean() < 0.35 * before.var(axis=1).mean()
    assert (sample.contributions == before).all()


def test_of_an_additive_function_little_noise_is_left_also_with_two_walks_a_row():
    # a row's own mean takes half of each of two walks away; what is seen of an effect is doubled again
    sample, store, start, _ = sample_of(linear, n=2000, pairs=2)
    found, _ = adjust(sample, pool=store, start=start, active=np.ones((2000, 3), dtype=bool))
    assert found.contributions.var(axis=1).mean() < 0.05 * sample.contributions.var(axis=1).mean()


def test_columns_and_rows_without_any_effect_stay_at_zero():
    sample, store, start, _ = sample_of(linear)
    silent = sample.contributions.copy()
    silent[:, :, 1] = 0.0
    active = np.ones((30, 3), dtype=bool)
    active[:5, 0] = False
    sample = Sample(rows=sample.rows, partner=sample.partner, contributions=silent)
    found, _ = adjust(sample, pool=store, start=start, active=active)
    assert (found.contributions[:, :, 1] == 0).all()
    assert (found.contributions[:5, :, 0] == silent[:5, :, 0]).all()
    assert (found.contributions[5:, :, 0] != silent[5:, :, 0]).any()


def test_nothing_changes_where_the_background_is_used_completely_or_walks_are_few():
    for more in ({"m": 6}, {"m": 3}, {"n": 3}, {"n": 60, "pairs": 1}):
        sample, store, start, _ = sample_of(linear, **more)
        active = np.ones((len(sample.rows), 3), dtype=bool)
        found, left = adjust(sample, pool=store, start=start, active=active)
        assert found is sample
        assert left is start


def test_estimates_of_a_rare_column_are_not_biased(monkeypatch):
    # most rows draw no background row with the rare value: they must not be taken for rows without effect
    monkeypatch.setattr(planning, "MAX_PAIRS", 15)
    rng = np.random.default_rng(1)

    def rows(n):
        A = rng.normal(size=(n, 4))
        A[:, 3] = rng.random(n) < 0.04
        return A

    subject = subject_of(lambda A: 5 * A[:, 3] + A[:, 0] * A[:, 1] + np.tanh(A[:, 2]), rows(300), rows(400))
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS).values[:, 3, 0]
    found = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    common = exact < 0
    error = (found.values[:, 3, 0] - exact)[common]
    assert abs(error.mean()) < 0.02 * np.abs(exact[common]).mean()
    assert error.std() < 0.1
