"""Estimates that grow until they are as precise as asked for: when they stop, what they hold, and what they say."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
from small_subjects import CONFIG, SEEDS, brute_force, subject_of

from explain_step import explainers
from explain_step.artifacts import importance
from explain_step.config import Config
from explain_step.errors import InvalidInput
from explain_step.explainers import growing, permutation, planning
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.growing import Plan
from explain_step.explainers.permutation import PERMUTATION
from explain_step.explainers.sampling import spread_rows
from explain_step.seeds import Seeds
from explain_step.types import Attributions, Subject


def product(A: Any) -> Any:
    """Two main effects and a product, of standard normal columns."""
    return 2 * A[:, 0] + A[:, 1] + A[:, 2] * A[:, 3]


def rows(n: int, d: int = 5, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def estimated(subject: Subject, *, seed: int = 0, **options: Any) -> tuple[Attributions, dict[str, Any]]:
    config = Config(budget=options.pop("budget", 600.0), **options)
    found, caveats = explainers.explain(subject, config=config, seeds=Seeds(seed), explainers=(PERMUTATION,))
    return found, {c.code: c for c in caveats}


def published_width(found: Attributions, *, top: int) -> float:
    table = importance.importance_table(found, weights=None, seeds=SEEDS).head(top)
    return float((table["ci_high"] - table["ci_low"]).max() / 2 / table["mean_abs_shap"].max())


def test_rows_grow_until_the_intervals_are_as_tight_as_asked() -> None:
    subject = subject_of(product, rows(6000), rows(300, seed=1))
    sizes = []
    for asked in (0.1, 0.05, 0.03):
        found, caveats = estimated(subject, precision=asked)
        facts = found.method.params
        assert facts["ended_by"] == "precision"
        assert facts["precision_reached"] <= asked == facts["precision"]
        assert published_width(found, top=8) <= 1.1 * asked
        assert not {"precision_missed", "budget_cut"} & set(caveats)
        assert found.method.budget is None
        sizes.append(len(found.rows))
        shown = subject.response.output[found.rows]
        assert np.allclose(found.values.sum(axis=1) + found.base_values, shown, atol=1e-10)
        assert (np.diff(found.rows) > 0).all(), "no row twice"
    assert sizes[0] < sizes[1] < sizes[2] < 6000
    assert sizes[2] > 4 * sizes[0], "a third of the width needs about nine times the rows"


def test_grown_estimates_agree_with_exact_values_within_their_standard_errors() -> None:
    subject = subject_of(lambda A: product(A) + np.tanh(A.sum(axis=1)), rows(700), rows(80, seed=1))
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    z = []
    for seed in range(3):
        found, _ = estimated(subject, seed=seed, precision=0.06)
        assert 200 < len(found.rows) <= 700
        assert found.standard_error is not None
        z.append(((found.values - exact.values[found.rows]) / found.standard_error).ravel())
    whole = np.concatenate(z)
    assert 0.92 < (np.abs(whole) < 1.96).mean() <= 1.0
    assert abs(whole.mean()) < 0.05, "unbiased"


def test_the_stopped_intervals_still_hold_the_population_value() -> None:
    """Mean |value| of log-normal sizes: looked at again and again, and stopped when it seems precise enough."""
    truth, most = float(np.exp(0.5 * 0.8**2)), Plan(rows=20_000, pairs=10)
    held = []
    for seed in range(500):
        values = np.random.default_rng(seed).lognormal(sigma=0.8, size=(20_000, 1, 1))
        now: Plan | None = Plan(rows=200, pairs=10)
        while now is not None:
            size = values[: now.rows]
            width = growing.width(size, np.zeros_like(size), top=8)
            now = growing.next_plan(now, most=most, work=10**9, width=width, noise=0.0, precision=0.04)
        assert width.whole <= 0.04
        held.append(abs(size.mean() - truth) <= width.whole * size.mean())
    assert 0.92 <= np.mean(held) <= 0.98


def test_all_rows_are_done_before_more_pairs_are_drawn_and_the_report_says_what_is_left() -> None:
    subject = subject_of(product, rows(150), rows(60, seed=1))
    found, caveats = estimated(subject, precision=0.001)
    facts = found.method.params
    assert (len(found.rows), facts["ended_by"]) == (150, "rows")
    assert facts["precision_of_rows"] > 0.001, "what more pairs cannot help"
    assert "all rows" in caveats["precision_missed"].message
    assert f"the widest is within {facts['precision_reached']:.1%}" in caveats["precision_missed"].message
    assert not caveats["precision_missed"].degrades


def test_noise_is_reduced_by_more_pairs_when_the_rows_are_done() -> None:
    """Rows that all have the same true values: only the noise of their estimates is left."""
    noisy = subject_of(
        lambda A: A[:, 0] + 3 * np.sin(40 * A[:, 1] * A[:, 2]), np.ones((60, 4)), rows(300, 4, seed=1)
    )
    found, _ = estimated(noisy, precision=0.02)
    assert len(found.rows) == 60
    assert found.method.params["pairs"] > planning.GOOD_PAIRS


def test_max_rows_bounds_the_growth() -> None:
    subject = subject_of(product, rows(2000), rows(60, seed=1))
    found, caveats = estimated(subject, precision=0.005, max_rows=300)
    assert len(found.rows) == 300
    assert found.method.params["ended_by"] == "rows"
    assert {"precision_missed", "rows_sampled"} <= set(caveats)


def test_a_spent_budget_ends_the_growth_and_degrades() -> None:
    def slow(A: Any) -> Any:
        time.sleep(2e-6 * len(A))
        return product(A)

    subject = subject_of(slow, rows(5000), rows(300, seed=1))
    found, caveats = estimated(subject, precision=0.001, budget=0.6)
    assert found.method.params["ended_by"] == "budget"
    assert found.method.budget is not None
    assert caveats["precision_missed"].degrades
    assert "budget" in caveats["precision_missed"].message
    assert len(found.rows) < 5000


def test_estimates_too_noisy_to_be_read_get_more_pairs_within_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def triples(A: Any) -> Any:
        return sum(A[:, j] * A[:, j + 1] * A[:, j + 2] for j in (0, 3, 6, 9))

    wide = subject_of(triples, rows(30, 12), rows(50, 12, seed=1))
    monkeypatch.setattr(planning, "EVALUATIONS", 2_000)
    monkeypatch.setattr(permutation, "EXTENSION", 1)
    plain, before = estimated(wide)
    monkeypatch.setattr(permutation, "EXTENSION", 8)
    grown, after = estimated(wide)
    assert before["estimated"].degrades
    assert (grown.rows == plain.rows).all()
    assert grown.method.params["pairs"] >= 4 * plain.method.params["pairs"]
    noises = [growing.noise(a.values, a.standard_error) for a in (plain, grown)]
    assert noises[1] < 0.7 * noises[0]
    assert after["estimated"].degrades == (noises[1] > growing.TOO_NOISY)


def test_growth_does_not_depend_on_anything_but_the_seed() -> None:
    subject = subject_of(product, rows(2500), rows(80, seed=1))
    one, two = (estimated(subject, precision=0.05)[0] for _ in range(2))
    assert (one.values == two.values).all()
    assert (one.rows == two.rows).all()


def test_sampled_rows_hold_every_segment_in_proportion_and_are_spread_over_outputs() -> None:
    rng = np.random.default_rng(0)
    output, strata = rng.normal(size=(1000, 1)), rng.choice(3, size=1000, p=[0.7, 0.25, 0.05])
    share = np.bincount(strata) / 1000
    drawn = np.zeros(1000)
    for seed in range(400):
        taken = spread_rows(output, 100, rng=np.random.default_rng(seed), strata=strata)
        drawn[taken] += 1
        counts = np.bincount(strata[taken], minlength=3)
        assert (np.abs(counts - 100 * share) <= 1).all()
    assert np.abs(drawn / 400 - 0.1).max() < 0.08, "every row has the same chance"
    largest = output[taken[strata[taken] == 0], 0]
    assert abs(largest.mean() - output[strata == 0].mean()) < 0.05


def test_batches_of_rows_keep_every_segment_in_proportion() -> None:
    subject = subject_of(product, rows(4000), rows(60, seed=1))
    strata = (np.arange(4000) % 10 == 0).astype(np.int64)
    found, caveats = estimated(dataclasses.replace(subject, strata=strata), precision=0.04)
    assert 250 < len(found.rows) < 4000
    assert abs(strata[found.rows].mean() - 0.1) < 0.01
    assert "declared segments" in caveats["rows_sampled"].message


def test_a_small_background_is_used_evenly_or_known_not_to_be() -> None:
    X, B = rows(30), rows(12, seed=1)
    subject = subject_of(product, X, B)
    found, _ = estimated(subject, precision=0.002)
    truth = brute_force(product, X, B)
    assert np.abs(found.values[:, :, 0] - truth).max() < 0.25


@pytest.mark.parametrize("value", [0, 1, -0.1, "tight", True, float("nan")])
def test_precision_is_a_part(value: Any) -> None:
    with pytest.raises(InvalidInput, match="precision must be a part above 0 and below 1"):
        Config.parse({"precision": value})
