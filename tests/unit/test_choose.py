"""Which explainer is chosen, what is checked about its answer, and what readers are told."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from small_subjects import CONFIG, SEEDS, attributions_of, subject_of

from explain_step import explainers
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import EXPLAINERS, additive, choose, explain, not_additive
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.masking import Clock
from explain_step.explainers.permutation import PERMUTATION
from explain_step.quantity import quantity
from explain_step.types import Attributions, MethodSpec, Subject


def rows(n: int, d: int = 3, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def product(A: Any) -> Any:
    return A[:, 0] * A[:, 1] + A[:, 2]


class Wrong:
    """An explainer whose values do not sum to the output."""

    name = "wrong"

    def why_not(self, subject: Subject) -> str | None:
        return None

    def explain(self, subject: Subject, *, config: Config, seeds: Any) -> Attributions:
        return attributions_of(subject, np.ones((len(subject.X), 3)), base=50.0)


def linear_subject(**changes: Any) -> Subject:
    from sklearn.linear_model import Ridge

    X = rows(40)
    model = Ridge().fit(X, X[:, 0] - X[:, 1])
    return subject_of(model.predict, X, native=model, family="linear", **changes)


def test_the_tuple_prefers_exact_explainers_and_ends_with_one_that_always_can() -> None:
    names = [e.name for e in EXPLAINERS]
    assert len(set(names)) == len(names)
    assert names[-1] == "permutation"
    assert EXPLAINERS[-1].why_not(subject_of(product, rows(5))) is None
    assert {"linear", "enumeration"} < set(names)


def test_choose_takes_the_first_that_can() -> None:
    assert choose(linear_subject()).name == "linear"
    assert choose(subject_of(product, rows(20))).name == "enumeration"
    assert choose(subject_of(product, rows(900, 9))).name == "permutation"


def test_choose_says_why_nobody_can() -> None:
    with pytest.raises(NotApplicable, match="linear: the model is not of the linear family"):
        choose(subject_of(product, rows(5)), explainers=tuple(e for e in EXPLAINERS if e.name == "linear"))


def test_exact_work_explains_every_row_and_needs_no_caveat() -> None:
    found, caveats = explain(linear_subject(), config=CONFIG, seeds=SEEDS)
    assert found.method.exact
    assert found.rows.tolist() == list(range(40))
    assert caveats == ()


def test_max_rows_samples_rows_of_exact_work_and_keeps_their_positions() -> None:
    subject = linear_subject()
    everything, _ = explain(subject, config=CONFIG, seeds=SEEDS)
    some, caveats = explain(subject, config=Config(max_rows=7), seeds=SEEDS)
    assert len(some.rows) == 7
    assert np.allclose(some.values, everything.values[some.rows])
    assert [c.code for c in caveats] == ["rows_sampled"]
    assert not caveats[0].degrades
    again, _ = explain(subject, config=Config(max_rows=7), seeds=SEEDS)
    assert (again.rows == some.rows).all()


def test_sampled_estimates_are_named_with_their_reason() -> None:
    subject = subject_of(
        product, rows(2500, 9), rows(50, 9, seed=1), reason="votes of several models are mixed"
    )
    found, caveats = explain(subject, config=Config(max_rows=2200), seeds=SEEDS)
    codes = {c.code: c for c in caveats}
    assert set(codes) == {"rows_sampled", "estimated"}
    assert not any(c.degrades for c in caveats)
    assert "votes of several models are mixed" in codes["estimated"].message
    assert len(found.rows) < 2200
    assert np.allclose(
        found.values.sum(axis=1) + found.base_values, subject.response.output[found.rows], atol=1e-9
    )


def test_an_explainer_whose_values_do_not_sum_is_set_aside_and_named() -> None:
    subject = subject_of(product, rows(20))
    found, caveats = explain(subject, config=CONFIG, seeds=SEEDS, explainers=(Wrong(), ENUMERATION))
    assert found.method.name == "enumeration"
    assert [c.code for c in caveats] == ["explainer_fallback"]
    assert "'wrong'" in caveats[0].message
    assert "20 of 20 rows" in caveats[0].message


@pytest.mark.parametrize(("spends", "left"), [(0.1, (0.05, 0.1)), (0.3, (0.05, 0.05))])
def test_a_second_explainer_has_what_the_first_left_of_the_budget(
    spends: float, left: tuple[float, float]
) -> None:
    given: list[float] = []

    class Slow(Wrong):
        def explain(self, subject: Subject, *, config: Config, seeds: Any) -> Attributions:
            clock = Clock(spends)
            while clock.spent() < spends:
                pass
            return super().explain(subject, config=config, seeds=seeds)

    class Second(Wrong):
        def explain(self, subject: Subject, *, config: Config, seeds: Any) -> Attributions:
            given.append(config.budget or 0.0)
            return ENUMERATION.explain(subject, config=config, seeds=seeds)

    config = Config(budget=0.2)
    explain(subject_of(product, rows(20)), config=config, seeds=SEEDS, explainers=(Slow(), Second()))
    assert left[0] <= given[0] <= left[1]


def test_without_an_explainer_that_passes_nothing_plausible_is_returned() -> None:
    with pytest.raises(NotApplicable, match="wrong: the values of 20 of 20 rows do not sum to the output"):
        explain(subject_of(product, rows(20)), config=CONFIG, seeds=SEEDS, explainers=(Wrong(),))


@pytest.mark.parametrize("broken", [np.nan, 1e-4])
def test_the_check_looks_at_every_row(broken: float) -> None:
    subject = subject_of(product, rows(30))
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert not_additive(subject, exact) is None
    values = exact.values.copy()
    values[17, 1, 0] += broken
    reason = not_additive(subject, dataclasses.replace(exact, values=values))
    assert reason is not None
    assert "1 of 30 rows" in reason


def test_an_output_that_is_wrong_is_not_hidden_by_one_that_is_right() -> None:
    subject = subject_of(lambda A: np.stack([product(A), A[:, 0]], axis=1), rows(30), outputs=("one", "two"))
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    for k in (0, 1):
        values = exact.values.copy()
        values[17, 1, k] += 0.1
        assert "1 of 30 rows" in str(not_additive(subject, dataclasses.replace(exact, values=values)))


def test_terms_that_cancel_count_with_their_sizes() -> None:
    exact = ENUMERATION.explain(subject_of(product, rows(3)), config=CONFIG, seeds=SEEDS)
    values = np.zeros_like(exact.values)
    values[:, :2, 0] = [[3.0, -2.0], [-0.5, 0.5], [np.nan, 1.0]]
    cancelling = dataclasses.replace(exact, values=values, base_values=np.full((3, 1), -1.0))
    assert additive.terms(cancelling).tolist() == [6.0]
    nothing = dataclasses.replace(cancelling, values=np.full_like(values, np.nan))
    assert additive.terms(nothing).tolist() == [0.0]


def test_rounding_is_taken_out_of_values_errors_and_parts_alike() -> None:
    exact = ENUMERATION.explain(subject_of(product, rows(3)), config=CONFIG, seeds=SEEDS)
    values = np.zeros_like(exact.values)
    values[:, 0], values[:, 1] = 1.0, 1e-15
    dusty = dataclasses.replace(exact, values=values, standard_error=values, parts=np.stack([values, values]))
    found = additive.without_dust(dusty)
    for part in (found.values, found.standard_error, found.parts[0]):
        assert part[:, 0].all()
        assert not part[:, 1:].any()


def test_the_check_allows_for_single_precision_only_where_the_model_has_it() -> None:
    X = rows(30).astype(np.float32).astype(np.float64)
    single = subject_of(lambda A: A[:, 0].astype(np.float32), X)
    double = subject_of(lambda A: A[:, 0] + 1e-12, X)
    for subject, passes in ((single, True), (double, False)):
        exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
        off = dataclasses.replace(exact, base_values=exact.base_values + 4e-6)
        assert (not_additive(subject, off) is None) is passes


@pytest.mark.parametrize(("offset", "exact"), [(2e4, True), (1.7e9, False)])
def test_sums_of_trees_that_the_models_rounding_drowns_are_not_its_explanation(
    offset: float, exact: bool
) -> None:
    from xgboost import XGBRegressor

    X = rows(60)
    model = XGBRegressor(n_estimators=10, max_depth=3).fit(X, offset + 100 * product(X))
    subject = subject_of(model.predict, X, native=model, family="tree")  # answers in steps of 128 at 1.7e9
    found, caveats = explain(subject, config=CONFIG, seeds=SEEDS)
    assert (found.method.name == "tree_interventional") is exact
    assert ("explainer_fallback" in {c.code for c in caveats}) is not exact
    outputs = subject.response.output - subject.response.output.mean(axis=0)
    assert np.abs(found.values.sum(axis=1) - outputs).max() <= 0.1 * np.abs(found.values).sum(axis=1).mean()


def test_a_constant_in_single_precision_may_be_rounded() -> None:
    subject = subject_of(lambda A: np.full(len(A), np.float32(0.1)), rows(20))
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    nothing = np.zeros_like(exact.values)
    off = dataclasses.replace(exact, values=nothing, base_values=exact.base_values + 1e-8)
    assert not_additive(subject, off) is None


def test_a_model_that_never_changes_is_degraded_not_complete() -> None:
    subject = subject_of(lambda A: np.full(len(A), 0.5), rows(20))
    _, caveats = explain(subject, config=CONFIG, seeds=SEEDS)
    zero = next(c for c in caveats if c.code == "no_attribution")
    assert zero.degrades
    assert "output does not change with any column" in zero.message


def test_what_rounding_leaves_of_columns_without_effect_is_zero() -> None:
    def model(A: np.ndarray) -> np.ndarray:
        return 1e6 + (A[:, 0] + 0.3) / 3 + A[:, 2] / 7

    subject = subject_of(model, rows(300, 5).round(0))  # coalition by coalition: means over background rows
    raw = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS).values
    found, _ = explain(subject, config=CONFIG, seeds=SEEDS)
    assert np.abs(raw[:, [1, 3, 4]]).max() > 0
    assert not found.values[:, [1, 3, 4]].any()
    assert np.abs(found.values[:, [0, 2]]).mean() > 0.01


@pytest.mark.parametrize("scale", [1e-14, 1e-3, 1e9])
def test_small_outputs_are_judged_by_their_own_size(scale: float) -> None:
    subject = subject_of(lambda A: scale * A[:, 0] * A[:, 1], rows(30))
    found, caveats = explain(subject, config=CONFIG, seeds=SEEDS)
    assert "no_attribution" not in {c.code for c in caveats}
    assert 0.1 * scale < np.abs(found.values).max() < 100 * scale
    off = dataclasses.replace(found, base_values=found.base_values + 1e-3 * scale)
    assert not_additive(subject, off) is not None


def test_rows_that_equal_their_background_are_degraded_with_the_remedy() -> None:
    subject = subject_of(product, rows(1))
    _, caveats = explain(subject, config=CONFIG, seeds=SEEDS)
    zero = next(c for c in caveats if c.code == "no_attribution")
    assert zero.degrades
    assert "other background rows" in zero.message


def test_a_huge_background_is_sampled_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explainers.permutation, "BACKGROUND_ROWS", 100)
    subject = subject_of(product, rows(10), rows(150, seed=1))
    found, caveats = explain(subject, config=CONFIG, seeds=SEEDS, explainers=(PERMUTATION,))
    assert found.method.params["background_rows"] == 100
    message = next(c.message for c in caveats if c.code == "background_sampled")
    assert "100 of the 150" in message
    told = quantity(subject, found)  # page, card, figures and tables name the background by these words
    assert told["background"] == f"100 of {subject.background_name}"
    small = subject_of(product, rows(10), rows(50, seed=1))
    whole, _ = explain(small, config=CONFIG, seeds=SEEDS, explainers=(PERMUTATION,))
    assert quantity(small, whole)["background"] == small.background_name


def test_every_method_is_declared() -> None:
    for subject in (linear_subject(), subject_of(product, rows(20)), subject_of(product, rows(900, 9))):
        found, _ = explain(subject, config=CONFIG, seeds=SEEDS)
        method = found.method
        assert isinstance(method, MethodSpec)
        assert method.version
        assert method.exact is (found.standard_error is None)
        assert method.params["rows"] == len(found.rows)


def test_estimates_that_are_mostly_noise_degrade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explainers.planning, "MAX_PAIRS", 4)
    loud = subject_of(lambda A: np.prod(np.sign(A), axis=1), rows(100, 6), rows(300, 6, seed=1))
    _, caveats = explain(loud, config=CONFIG, seeds=SEEDS, explainers=(PERMUTATION,))
    estimated = next(c for c in caveats if c.code == "estimated")
    assert estimated.degrades
    assert "too imprecise" in estimated.message
