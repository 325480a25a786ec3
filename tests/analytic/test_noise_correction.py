"""Mean |SHAP| of estimated values: bias and coverage against closed forms, and against exact tree values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import integrate

from explain_step import data, intervals, models
from explain_step.artifacts import importance, noise_correction
from explain_step.config import Config
from explain_step.explainers import planning
from explain_step.explainers.permutation import PERMUTATION
from explain_step.explainers.tree import TREE
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FloatArray, MethodSpec

ROWS, REPEATS = 400, 300
SIZES = {"strong": 8.0, "middle": 2.0, "weak": 0.7}
"""Standard deviation of normally distributed effects, in units of the noise of one value."""


def noisy(
    true: FloatArray, *, scale: FloatArray | float = 1.0, seed: int = 0
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Estimates (n, d), their standard errors and four parts, as permutation sampling gives them."""
    error = np.broadcast_to(np.asarray(scale, dtype=np.float64), true.shape)
    parts = true + 2 * error * np.random.default_rng(seed).normal(size=(4, *true.shape))
    return parts.mean(axis=0), error, parts


def even(n: int) -> FloatArray:
    return np.full(n, 1 / n)


@pytest.mark.parametrize("with_parts", [True, False])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_intervals_cover_the_population_value(size: float, with_parts: bool) -> None:
    rng = np.random.default_rng(1)
    values, error, parts = noisy(rng.normal(scale=size, size=(ROWS, REPEATS)))
    found = noise_correction.corrected(values, error, parts=parts if with_parts else None, weights=even(ROWS))
    mean, low, high = intervals.mean_interval(found, rng=rng, resamples=399)
    truth = size * np.sqrt(2 / np.pi)
    assert 0.92 <= ((low <= truth) & (truth <= high)).mean() <= 0.99
    assert abs(mean.mean() - truth) < 0.05
    plain = np.abs(values).mean()
    assert abs(mean.mean() - truth) < max(0.2 * abs(plain - truth), 0.03)


def test_the_plain_mean_of_weak_effects_is_not_covered() -> None:
    rng = np.random.default_rng(1)
    values, _, _ = noisy(rng.normal(scale=SIZES["weak"], size=(ROWS, REPEATS)))
    _, low, _ = intervals.mean_interval(np.abs(values), rng=rng, resamples=199)
    assert (low > SIZES["weak"] * np.sqrt(2 / np.pi)).mean() > 0.9


@pytest.mark.parametrize(
    ("share", "most"), [(0.0, 0.2), (0.1, 0.2)], ids=["no effect", "no effect in most rows"]
)
def test_noise_without_effect_loses_most_of_its_size(share: float, most: float) -> None:
    rng = np.random.default_rng(2)
    true = np.where(rng.random((ROWS, 200)) < share, 5 * rng.normal(size=(ROWS, 200)), 0.0)
    values, error, parts = noisy(true)
    for given in (parts, None):
        bias = noise_correction.corrected(values, error, parts=given, weights=even(ROWS)).mean() - (
            share * 5 * np.sqrt(2 / np.pi)
        )
        assert 0 < bias < most
    assert np.abs(values).mean() - share * 5 * np.sqrt(2 / np.pi) > 0.7


def test_an_interval_of_pure_noise_begins_at_zero() -> None:
    n, repeats = 200, 200
    values, error, parts = noisy(np.zeros((n, repeats)))
    found = noise_correction.sizes(attributions(values, error=error, parts=parts))
    assert found.ceiling is not None
    assert 0.94 <= (found.ceiling[:, 0] == 0).mean() <= 1.0


def test_corrected_means_stay_between_the_signed_and_the_plain_mean() -> None:
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.ones(60))
    true = rng.normal(size=(60, 400)) * rng.choice([0, 0.3, 1, 30], size=400) + rng.choice([0, 1], size=400)
    values, error, parts = noisy(true, scale=rng.lognormal(size=(60, 400)))
    for given in (parts, None):
        mean = weights @ noise_correction.corrected(values, error, parts=given, weights=weights)
        assert (mean <= weights @ np.abs(values) + 1e-9).all()
        assert (mean >= np.abs(weights @ values) - 1e-9).all()


def test_the_correction_is_continuous_and_scales_with_the_values() -> None:
    rng = np.random.default_rng(4)
    true, noise = rng.normal(size=(100, 1)), rng.normal(size=(4, 100, 1))
    last = []
    for size in np.linspace(0, 0.6, 1201):
        parts = size * true + noise
        found = noise_correction.corrected(
            parts.mean(axis=0), np.full((100, 1), 0.5), parts=parts, weights=even(100)
        )
        last.append(float(found.mean()))
    assert max(abs(b - a) for a, b in pairwise(last)) < 0.015
    small = noise_correction.corrected(
        1e-9 * parts.mean(axis=0), np.full((100, 1), 5e-10), parts=1e-9 * parts, weights=even(100)
    )
    np.testing.assert_allclose(small * 1e9, found, atol=1e-6)


@pytest.mark.parametrize("slope", [-0.3, -0.1, 1e-6, 0.3, 0.7, 0.9])
def test_the_extrapolation_is_exact_where_the_noise_is_as_it_says(slope: float) -> None:
    """The mean size rises with the noise t at the rate 1 / sqrt(G), G linear: what is seen from 1 to 4 tells 0 to 1."""

    def risen(start: float, end: float) -> float:
        return float(integrate.quad(lambda t: (1 + slope * (t - 1)) ** -0.5, start, end)[0])

    first, second = risen(1, 2), risen(2, 4) / 2
    factor, steep = noise_correction._extrapolated(np.array([first / second]))
    assert factor[0] * first == pytest.approx(risen(0, 1), rel=1e-6)
    (near,), _ = noise_correction._extrapolated(np.array([first / second + 1e-6]))
    assert (near - factor[0]) / 1e-6 == pytest.approx(steep[0], rel=1e-3)


def test_values_without_noise_keep_their_size() -> None:
    values = np.random.default_rng(5).normal(size=(50, 3))
    parts = np.broadcast_to(values, (4, 50, 3))
    for given in (parts, None):
        found = noise_correction.corrected(values, np.zeros((50, 3)), parts=given, weights=even(50))
        np.testing.assert_allclose(found, np.abs(values))


def test_errors_of_sums_follow_from_a_known_total() -> None:
    rng = np.random.default_rng(6)
    free = np.array([1.0, 2.0, 0.5, 3.0, 1.5])
    drawn = rng.normal(size=(400_000, 5)) * np.sqrt(free)
    # given that they sum to zero
    drawn -= drawn.sum(axis=1, keepdims=True) * free / free.sum()
    single = np.broadcast_to(drawn.std(axis=0)[None, :, None], (2, 5, 1))
    sets = [[0, 1], [2], [3, 4], [0, 1, 2, 3, 4], [1, 2, 3, 4]]
    found = noise_correction.error_of_sums(single, sets)[0, :, 0]
    expected = [drawn[:, members].sum(axis=1).std() for members in sets]
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=2e-3)


def attributions(values: FloatArray, *, error: FloatArray | None, parts: FloatArray | None) -> Attributions:
    n, d = values.shape
    return Attributions(
        values=values[:, :, None],
        base_values=np.zeros((n, 1)),
        feature_names=tuple(f"x{j}" for j in range(d)),
        output_names=("y",),
        output_space="prediction",
        method=MethodSpec(name="test", version="1", exact=error is None),
        rows=np.arange(n),
        standard_error=None if error is None else error[:, :, None],
        parts=None if parts is None else parts[..., None],
    )


def test_groups_are_corrected_by_the_noise_of_their_sum() -> None:
    rng = np.random.default_rng(7)
    true = rng.normal(size=(3000, 3)) * [1.0, 1.0, 3.0]
    values, error, parts = noisy(true)
    whole = attributions(values, error=error, parts=parts)
    table = importance.importance_table(
        importance.summed(whole, [("pair", [0, 1]), ("x2", [2])]), weights=None, seeds=Seeds(0), label="group"
    ).set_index("group")
    expected = np.abs(true[:, :2].sum(axis=1)).mean()
    assert table.loc["pair", "mean_abs_shap_raw"] > 1.2 * expected
    assert table.loc["pair", "mean_abs_shap"] == pytest.approx(expected, rel=0.05)
    assert table["share"].sum() == pytest.approx(1)


def test_exact_values_are_not_touched() -> None:
    values = np.random.default_rng(8).normal(size=(80, 4))
    exact = attributions(values, error=None, parts=None)
    assert (noise_correction.sizes(exact).rows == np.abs(exact.values)).all()
    table = importance.importance_table(exact, weights=None, seeds=Seeds(0))
    assert not {"mean_abs_shap_raw", "mean_standard_error"} & set(table.columns)


@pytest.mark.parametrize("evaluations", [planning.EVALUATIONS, 40_000], ids=["default plan", "few pairs"])
def test_sampled_importance_of_trees_agrees_with_their_exact_importance(
    monkeypatch: pytest.MonkeyPatch, evaluations: int
) -> None:
    from sklearn.ensemble import RandomForestRegressor

    monkeypatch.setattr(planning, "EVALUATIONS", evaluations)
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(900, 8)), columns=[f"x{j}" for j in range(8)])
    X["rare"] = (rng.random(900) < 0.03).astype(float)
    y = 2 * X["x0"] + X["x1"] * X["x2"] + np.sin(2 * X["x3"]) + 3 * X["rare"] + 0.3 * X["x4"]
    forest = RandomForestRegressor(40, max_depth=6, random_state=0).fit(X[:600], y[:600])
    config = Config(budget=600)
    model = models.wrap(forest, frame=X[:600], config=config)
    subject, _ = data.subject(model, X[600:].reset_index(drop=True), config=config, background=X[:600])
    exact = np.abs(TREE.explain(subject, config=config, seeds=Seeds(0)).values[:, :, 0]).mean(axis=0)
    raw, corrected = [], []
    for seed in range(2):
        found = PERMUTATION.explain(subject, config=config, seeds=Seeds(seed))
        assert found.parts is not None
        np.testing.assert_allclose(found.parts.mean(axis=0), found.values, atol=1e-12)
        table = importance.importance_table(found, weights=None, seeds=Seeds(0)).set_index("feature")
        table = table.loc[list(X.columns)]
        raw.append(table["mean_abs_shap_raw"].to_numpy() - exact)
        corrected.append(table["mean_abs_shap"].to_numpy() - exact)
        assert ((table["ci_low"] <= exact) & (exact <= table["ci_high"])).all()
    raw_off, off = np.mean(raw, axis=0) / exact.sum(), np.mean(corrected, axis=0) / exact.sum()
    assert np.abs(off).max() < 0.01
    assert abs(off.sum()) < 0.006
    if evaluations < 100_000:
        assert raw_off.sum() > 0.01, "the plain means are too large"
    # a column that changes in 3 % of the background rows: rows in which no change was drawn must not count as zero
    assert abs(off[-1]) < 0.003


def test_rounding_errors_in_the_quarters_decide_nothing() -> None:
    """Draws that agree but for the last bits, which are others on every processor: their ratio may be any number."""
    weights = np.full(4, 0.25)
    first = np.array([[4e-17], [0.0], [0.0], [0.0]])
    second = np.array([[1e-17], [-1e-17], [1e-33], [0.0]])
    blind = noise_correction._excess(first, second, weights=weights, floor=0.0)
    assert np.abs(weights @ blind) > 1e-12  # a rounding error of a rounding error, and its square
    seeing = noise_correction._excess(first, second, weights=weights, floor=1e-10)
    np.testing.assert_array_equal(seeing, first)
