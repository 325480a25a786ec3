"""Scores against closed forms and reference values, their controls, and where they are undefined."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from scipy import stats
from small_subjects import CONFIG, SEEDS, attributions_of, subject_of

from explain_step.config import Config
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.scores import SCORERS, fidelity, score, to_artifact
from explain_step.scores.base import CONTROL, random_attributions
from explain_step.scores.fidelity import FIDELITY
from explain_step.scores.sparsity import SPARSITY, _score, gini
from explain_step.scores.stability import MANY, STABILITY, tau_b, top_overlap
from explain_step.scores.stability import interval as stability_interval
from explain_step.seeds import Seeds
from explain_step.types import Attributions, Score, Subject


def rows(n: int, d: int = 5, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def additive(A: Any) -> Any:
    return 3 * A[:, 0] + np.sin(A[:, 1]) + A[:, 2] ** 2 + 0 * A[:, 3]


def exact_additive(n: int = 60, m: int = 200) -> tuple[Subject, Attributions]:
    X, B = rows(n), rows(m, seed=1)
    subject = subject_of(additive, X, B)
    parts = [3 * X[:, 0], np.sin(X[:, 1]), X[:, 2] ** 2, 0 * X[:, 3], 0 * X[:, 4]]
    means = [3 * B[:, 0].mean(), np.sin(B[:, 1]).mean(), (B[:, 2] ** 2).mean(), 0.0, 0.0]
    values = np.stack([p - c for p, c in zip(parts, means, strict=True)], axis=1)
    return subject, attributions_of(subject, values, base=additive(B).mean())


def by_name(found: tuple[Score, ...]) -> dict[tuple[str, str], Score]:
    return {(s.name, s.variant): s for s in found}


def test_gini_has_its_reference_values() -> None:
    # Quantus 0.6.0 and the closed form give .75, 0, .375, .383333 for these; times d / (d - 1) = 4 / 3 here
    cases = np.array([[0, 0, 1, 0], [1, 1, 1, 1], [0.5, 0.3, 0.15, 0.05], [8, 4, 2, 1]], dtype=float)
    assert np.allclose(gini(cases) * 3 / 4, [0.75, 0.0, 0.375, 0.38333333333333336])
    assert np.allclose(gini(-cases), gini(cases)), "signs do not matter"
    assert np.isnan(gini(np.zeros(4)))
    assert np.isnan(gini(np.ones((1, 1)))).all()


def test_rank_agreement_has_its_reference_values() -> None:
    reference = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    swapped = np.array([[4.0, 5.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    assert np.allclose(tau_b(swapped, reference), [0.8, -1.0, 1.0])
    assert np.allclose(top_overlap(swapped, reference, k=1), [0.0, 0.0, 1.0])
    assert np.allclose(top_overlap(swapped, reference, k=3), [1.0, 1 / 3, 1.0])


def test_every_score_has_interval_direction_source_and_control() -> None:
    subject, attributions = exact_additive()
    found = score(subject, attributions, config=CONFIG, seeds=SEEDS)
    assert {s.name for s in found} == {s.name for s in SCORERS}
    for scorer in SCORERS:
        variants = [s for s in found if s.name == scorer.name]
        assert [s.variant for s in variants].count(CONTROL) == 1
        for s in variants:
            assert s.direction == scorer.direction
            assert "arXiv" in s.source or "doi" in s.source
            assert s.n > 0
            assert s.value is not None
            assert s.ci_low is not None
            assert s.ci_high is not None
            assert s.ci_low <= s.ci_high
            assert s.method.params["interval"]


def test_exact_values_of_an_additive_function_have_full_fidelity_and_random_ones_have_not() -> None:
    for m in (30, 200):
        subject, attributions = exact_additive(m=m)
        scores = by_name(score(subject, attributions, config=CONFIG, seeds=SEEDS))
        best, control = scores["masking_r2", "interventional"], scores["masking_r2", CONTROL]
        assert best.value == pytest.approx(1.0, abs=1e-9 if m == 30 else 0.01)
        assert control.value is not None
        assert control.ci_high is not None
        assert best.value is not None
        assert control.ci_high < 0.8 < best.value
        assert best.n == control.n


def test_fidelity_is_one_minus_the_share_that_masking_leaves_unexplained() -> None:
    """For f = x0 x1 the two proper coalitions have v({0}) = x0 mean(b1) and v({1}) = mean(b0) x1."""
    rng = np.random.default_rng(2)
    B = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    X = rng.normal(size=(50, 2)) + np.array([3.0, 0.0])
    B = B + 0.5
    subject = subject_of(lambda A: A[:, 0] * A[:, 1], X, B)
    attributions = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    b0, b1 = B.mean(axis=0)
    v = np.concatenate([X[:, 0] * b1, b0 * X[:, 1]])
    said = attributions.base_values[0, 0] + attributions.values[:, :, 0].T.ravel()
    expected = 1 - ((v - said) ** 2).sum() / ((v - v.mean()) ** 2).sum()
    found = by_name(score(subject, attributions, config=CONFIG, seeds=SEEDS, scorers=(FIDELITY,)))
    # ten random orders per row: not both prefixes equally often
    assert found["masking_r2", "interventional"].value == pytest.approx(expected, abs=0.1)


def test_fidelity_notices_the_scale_and_swapped_columns() -> None:
    subject, attributions = exact_additive()
    base = by_name(score(subject, attributions, config=CONFIG, seeds=SEEDS, scorers=(FIDELITY,)))
    for values in (attributions.values * 2, attributions.values[:, [1, 0, 2, 3, 4]]):
        changed = dataclasses.replace(attributions, values=values)
        worse = by_name(score(subject, changed, config=CONFIG, seeds=SEEDS, scorers=(FIDELITY,)))
        value = worse["masking_r2", "interventional"].value
        reference = base["masking_r2", "interventional"].value
        assert value is not None
        assert reference is not None
        assert value < reference - 0.2


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_fidelity_does_not_depend_on_the_unit_of_the_output(unit: float) -> None:
    found = []
    for scale in (1.0, unit):
        subject, attributions = exact_additive()
        scaled = subject_of(lambda A, s=scale: s * additive(A), subject.X, subject.background)
        given = attributions_of(
            scaled, 1.1 * scale * attributions.values[:, :, 0], base=scale * attributions.base_values[0, 0]
        )
        found.append(score(scaled, given, config=CONFIG, seeds=SEEDS, scorers=(FIDELITY,))[0].value)
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_fidelity_asks_for_no_more_predictions_than_its_limit_and_then_declares_no_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject, attributions = exact_additive()
    monkeypatch.setattr(fidelity, "PREDICTIONS", 3_000)
    monkeypatch.setattr(fidelity, "BACKGROUND_ROWS", 50)
    found = score(subject, attributions, config=CONFIG, seeds=SEEDS, scorers=(FIDELITY,))[0].method
    per_walk = len(found.params["coalition_sizes"]) * found.params["background_rows_per_walk"]
    assert 0 < found.params["walks"] * per_walk <= 3_000
    assert found.budget is None


def test_sampling_the_background_adds_no_bias_to_fidelity() -> None:
    X, B = rows(80), rows(600, seed=1)
    subject = subject_of(lambda A: A[:, 0] * A[:, 1] + A[:, 2], X, B)
    pairs = (
        X[:, 0] * X[:, 1],
        X[:, 0] * B[:, 1].mean(),
        B[:, 0].mean() * X[:, 1],
        (B[:, 0] * B[:, 1]).mean(),
    )
    first = ((pairs[0] - pairs[2]) + (pairs[1] - pairs[3])) / 2
    second = ((pairs[0] - pairs[1]) + (pairs[2] - pairs[3])) / 2
    values = np.stack([first, second, X[:, 2] - B[:, 2].mean(), 0 * first, 0 * first], axis=1)
    attributions = attributions_of(subject, values, base=subject.model.predict(subject.background).mean())
    sampled = [
        score(subject, attributions, config=CONFIG, seeds=Seeds(s), scorers=(FIDELITY,))[0].value
        for s in range(6)
    ]
    assert np.std(np.array(sampled, dtype=float)) < 0.05

    def truth() -> float:
        """All prefixes of all orders: every proper subset, weighted as prefixes are."""
        from itertools import permutations

        wrong, outputs = [], []
        for order in permutations(range(5)):
            for size in range(1, 5):
                s = set(order[:size])
                both = (
                    pairs[0]
                    if {0, 1} <= s
                    else pairs[1]
                    if 0 in s
                    else pairs[2]
                    if 1 in s
                    else pairs[3] + 0 * first
                )
                v = both + (X[:, 2] if 2 in s else B[:, 2].mean())
                said = attributions.base_values[0, 0] + values[:, sorted(s)].sum(axis=1)
                wrong.append((v - said) ** 2)
                outputs.append(v)
        v = np.concatenate(outputs)
        return float(1 - np.concatenate(wrong).sum() / ((v - v.mean()) ** 2).sum())

    assert np.mean(np.array(sampled, dtype=float)) == pytest.approx(truth(), abs=0.03)


def test_additivity_error_is_relative_to_the_spread_and_names_the_worst_row() -> None:
    subject, attributions = exact_additive()
    exact = by_name(score(subject, attributions, config=CONFIG, seeds=SEEDS))
    assert exact["additivity_error", "mean"].value == pytest.approx(0.0, abs=1e-12)
    values = attributions.values.copy()
    values[7, 0, 0] += 2.0
    found = by_name(
        score(subject, dataclasses.replace(attributions, values=values), config=CONFIG, seeds=SEEDS)
    )
    spread = float(subject.response.output.std())
    worst = found["additivity_error", "max"]
    assert worst.value == pytest.approx(2.0 / spread)
    assert (worst.ci_low, worst.ci_high) == (worst.value, worst.value), (
        "a maximum over all rows checked is known"
    )
    assert "every one of these rows was checked" in worst.method.params["interval"]
    assert found["additivity_error", "mean"].value == pytest.approx(2.0 / spread / 60)
    control = found["additivity_error", CONTROL].value
    assert control is not None
    assert control > 0.1


def test_stable_and_unstable_rankings_are_told_apart() -> None:
    n = 200
    sizes = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.5])
    subject = subject_of(lambda A: A[:, 0], rows(n, 6))
    settled = attributions_of(subject, sizes * (1 + 0.01 * rows(n, 6, seed=4)))
    open_race = attributions_of(subject, rows(n, 6, seed=5))
    firm, loose = (by_name(score(subject, a, config=CONFIG, seeds=SEEDS)) for a in (settled, open_race))
    assert firm["rank_stability", "kendall_tau_b"].value == pytest.approx(1.0)
    assert firm["rank_stability", "top5"].value == pytest.approx(1.0)
    loose_tau = loose["rank_stability", "kendall_tau_b"].value
    assert loose_tau is not None
    assert loose_tau < 0.8
    for s in (*firm.values(), *loose.values()):
        if s.value is not None and s.ci_low is not None and s.ci_high is not None:
            assert s.ci_low <= s.value <= s.ci_high, s


def test_tau_of_many_columns_is_the_tau_of_few() -> None:
    sizes, reference = np.abs(rows(3, MANY)).round(1), np.abs(rows(1, MANY, seed=1))[0].round(1)
    few = tau_b(sizes, reference)
    assert np.allclose(few, [stats.kendalltau(row, reference, variant="b").statistic for row in sizes])
    zeros = np.zeros((3, 1))
    many = tau_b(np.hstack([sizes + 1, zeros]), np.append(reference + 1, 0.0))
    assert np.all(many > few), "one more column that all agree on"
    assert np.isnan(tau_b(np.ones((1, 4)), np.arange(4.0))).all()


def test_an_interval_of_agreeing_resamples_is_no_point() -> None:
    low, high = stability_interval(np.ones(200), np.ones((50, 20)), lowest=0.0, step=0.2) or (1.0, 1.0)
    assert low == pytest.approx(1 - 0.003)
    assert high == 1.0
    assert stability_interval(np.ones(200), np.full((50, 20), np.nan), lowest=0.0, step=0.2) is None


def test_the_interval_of_stability_holds_the_expected_agreement() -> None:
    scale = np.array([3.0, 2.8, 2.6, 2.4, 1.0, 0.5])
    subject = subject_of(lambda A: A[:, 0], rows(60, 6))
    found = [
        by_name(
            score(
                subject,
                attributions_of(subject, scale * rows(60, 6, seed=seed)),
                config=CONFIG,
                seeds=Seeds(seed),
                scorers=(STABILITY,),
            )
        )["rank_stability", "kendall_tau_b"]
        for seed in range(20)
    ]
    values = np.array([[s.value, s.ci_low, s.ci_high] for s in found], dtype=float)
    expected = values[:, 0].mean()
    inside = (values[:, 1] <= expected) & (expected <= values[:, 2])
    assert inside.mean() >= 0.75
    assert (values[:, 2] - values[:, 1]).mean() < 0.6, "an interval that says something"


def test_several_outputs_are_averaged() -> None:
    X = rows(40, 3)
    subject = subject_of(lambda A: np.stack([A[:, 0], A.sum(axis=1)], axis=1), X, outputs=("a", "b"))
    one, every = np.zeros((40, 3)), X - X.mean(axis=0)
    one[:, 0] = every[:, 0]
    base = np.array([X[:, 0].mean(), X.sum(axis=1).mean()])
    found = by_name(
        score(
            subject,
            attributions_of(subject, np.stack([one, every], axis=2), base),
            config=CONFIG,
            seeds=SEEDS,
        )
    )
    mean_gini = (1.0 + gini(np.abs(every).mean(axis=0))) / 2
    assert found["sparsity_gini", "global"].value == pytest.approx(float(mean_gini))
    assert found["masking_r2", "interventional"].value == pytest.approx(1.0)


@pytest.mark.parametrize("most", [1.2, 2.0])
def test_the_gini_of_nearly_equal_columns_is_covered_and_lies_in_its_interval(most: float) -> None:
    scale = np.linspace(1.0, most, 10)
    truth, hits = float(gini(scale)), []
    subject = subject_of(lambda A: A.sum(axis=1), rows(60, 10), rows(60, 10, seed=1))
    for k in range(100):
        made = attributions_of(subject, rows(60, 10, seed=k + 2) * scale, base=0.0)
        found = _score(SPARSITY, subject, made, config=CONFIG, seeds=Seeds(k))
        for one in found:
            assert one.value is not None
            assert one.ci_low <= one.value <= one.ci_high
        hits.append(found[0].ci_low <= truth <= found[0].ci_high)
    assert np.mean(hits) > 0.84


def test_controls_keep_the_rows_totals_and_nothing_else() -> None:
    _, attributions = exact_additive()
    control = random_attributions(attributions, seeds=SEEDS)
    assert np.allclose(control.sum(axis=1), attributions.values.sum(axis=1))
    assert not np.allclose(control, attributions.values)
    first = np.zeros_like(attributions.values)
    first[:, :1] = attributions.values[:, :1]
    alone = dataclasses.replace(attributions, values=first)
    size = (random_attributions(alone, seeds=SEEDS, same_total=False) ** 2).mean(axis=0)
    assert size.max() < 3 * size.min()  # nor which column matters


def test_undefined_scores_are_missing_with_a_reason_and_never_zero() -> None:
    constant = subject_of(lambda A: np.full(len(A), 2.0), rows(20))
    nothing = attributions_of(constant, np.zeros((20, 5)), base=2.0)
    found = score(constant, nothing, config=CONFIG, seeds=SEEDS)
    assert all(s.value is None and s.reason for s in found)

    single = subject_of(lambda A: A[:, 0], rows(20, 1))
    values = single.X.to_numpy() - single.X.to_numpy().mean()
    found = score(
        single,
        attributions_of(single, values, base=float(single.X.mean().iloc[0])),
        config=CONFIG,
        seeds=SEEDS,
    )
    missing = {s.name for s in found if s.value is None}
    assert missing == {"masking_r2", "rank_stability", "sparsity_gini"}
    assert {s.reason for s in found if s.name == "sparsity_gini"} == {
        "sparsity compares columns, and the model has one"
    }

    row = subject_of(additive, rows(1), rows(10, seed=1))
    exact = ENUMERATION.explain(row, config=CONFIG, seeds=SEEDS)
    found = score(row, exact, config=CONFIG, seeds=SEEDS)
    assert all(s.ci_low is None for s in found)
    assert {s.name for s in found if s.value is None} == {"additivity_error", "rank_stability"}


def test_the_budget_cuts_walks_and_is_declared() -> None:
    import time

    def slow(A: Any) -> Any:
        time.sleep(2e-5 * len(A))
        return additive(A)

    subject, attributions = exact_additive()
    slow_subject = dataclasses.replace(
        subject_of(slow, rows(60), rows(200, seed=1)), response=subject.response
    )
    first = score(slow_subject, attributions, config=Config(budget=0.2), seeds=SEEDS, scorers=(FIDELITY,))[0]
    assert first.method.budget is not None
    assert first.value is not None


def test_the_table_has_the_contract_columns_and_strict_json() -> None:
    subject, attributions = exact_additive()
    found = score(subject, attributions, config=CONFIG, seeds=SEEDS)
    artifact = to_artifact(found, {"rows": 60})
    columns = ["score", "variant", "value", "ci_low", "ci_high", "direction", "n", "source", "reason"]
    assert list(artifact.table.columns) == columns
    assert artifact.name == "scores"
    assert len(artifact.table) == len(found)
    for column in ("value", "ci_low", "ci_high", "n"):
        assert artifact.table[column].dtype == np.float64
    json.dumps(artifact.meta, allow_nan=False)
    assert artifact.meta["quantity"] == {"rows": 60}


def test_same_seed_same_scores_and_inputs_unchanged() -> None:
    subject, attributions = exact_additive()
    before = subject.X.copy()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the caller's generator
    first = score(subject, attributions, config=CONFIG, seeds=SEEDS)
    assert first == score(subject, attributions, config=CONFIG, seeds=SEEDS)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert subject.X.equals(before)
