"""Exact values of kernel machines, against enumeration of all coalitions, through real pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.compose import make_column_transformer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR

from explain_step import data, explainers, models
from explain_step.config import Config
from explain_step.explainers import kernel, kernel_machines, product_games, tree_compiled
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.kernel import KERNEL
from explain_step.seeds import Seeds
from explain_step.types import FloatArray, Subject

CONFIG, SEEDS = Config(budget=600.0), Seeds(0)
RNG = np.random.default_rng(7)
N = 120
X = pd.DataFrame(
    {
        "size": RNG.normal(90, 20, N),
        "age": RNG.integers(0, 100, N).astype(np.float64),
        "kind": RNG.choice(["flat", "house", "farm"], N),
        "floors": RNG.integers(1, 4, N),
    }
)
Y = np.sin(X["size"] / 20) + X["age"] / 50 * (X["kind"] == "farm") + RNG.normal(0, 0.1, N)
TWO = np.where(Y.median() < Y, "yes", "no")


def fitted(estimator: Any, y: Any) -> Any:
    steps = make_column_transformer(
        (StandardScaler(), ["size", "age"]),
        (OneHotEncoder(), ["kind"]),
        remainder="passthrough",
    )
    return make_pipeline(steps, estimator).fit(X, y)


def wrapped(model: Any, rows: pd.DataFrame, background: pd.DataFrame, **options: Any) -> Subject:
    config = Config.parse(options)
    return data.subject(
        models.wrap(model, frame=rows, config=config), rows, None, config=config, background=background
    )[0]


MACHINES: dict[str, tuple[Any, Any]] = {
    "SVC": (SVC(), TWO),
    "SVC with a width": (SVC(gamma=0.3, C=10, class_weight="balanced"), TWO),
    "NuSVC": (NuSVC(), TWO),
    "SVR": (SVR(), Y),
    "NuSVR": (NuSVR(), Y),
    "KernelRidge": (KernelRidge(kernel="rbf", alpha=0.1), Y),
    "KernelRidge of two targets": (
        KernelRidge(kernel="rbf", gamma=0.2),
        pd.DataFrame({"one": Y, "two": Y**2}),
    ),
    "Gaussian process": (
        GaussianProcessRegressor(ConstantKernel(1.0) * RBF(2.0) + WhiteKernel(0.1), optimizer=None),
        Y + 5,
    ),
    "Gaussian process of a sum": (
        GaussianProcessRegressor(
            ConstantKernel(2.0) * RBF([1.0, 2.0, 0.7, 0.7, 0.7, 3.0])
            + RBF(3.0) * RBF(2.0)
            + ConstantKernel(0.5),
            alpha=0.05,
            optimizer=None,
            normalize_y=True,
        ),
        10 * Y + 5,
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_values_are_those_of_all_coalitions(name: str) -> None:
    estimator, y = MACHINES[name]
    subject = wrapped(fitted(estimator, y), X[:15], X[15:60])
    assert KERNEL.why_not(subject) is None
    found = KERNEL.explain(subject, config=CONFIG, seeds=SEEDS)
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    largest = np.abs(exact.values).max()
    assert_allclose(found.values, exact.values, atol=1e-9 * largest)
    assert_allclose(found.base_values, exact.base_values, atol=1e-9 * largest)
    assert explainers.not_additive(subject, found) is None
    assert found.method.exact
    assert found.standard_error is None


@pytest.mark.parametrize("estimator", [SVR(), SVC()], ids=["SVR", "SVC"])
def test_machines_without_steps_before_them_are_exact_too(estimator: Any) -> None:
    numbers = X[["size", "age", "floors"]]
    subject = wrapped(
        estimator.fit(numbers, Y if isinstance(estimator, SVR) else TWO), numbers[:8], numbers[8:40]
    )
    found, caveats = explainers.explain(subject, config=CONFIG, seeds=SEEDS)
    assert (found.method.name, caveats) == ("product_kernel", ())
    assert_allclose(found.values, ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS).values, atol=1e-9)


@pytest.mark.parametrize(
    ("limit", "most", "reason"),
    [
        ("MOST_COLUMNS", 4, None),
        ("MOST_COLUMNS", 3, "4 columns are too many"),
        ("MOST_CELLS", 50, "6 derived columns do not fit in memory"),
    ],
)
def test_what_is_too_large_is_left_to_others(
    limit: str, most: int, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = wrapped(fitted(SVR(), Y), X[:6], X[15:40])
    monkeypatch.setattr(kernel, limit, most)
    said = KERNEL.why_not(subject)
    assert said is None if reason is None else reason in str(said)


@pytest.mark.parametrize("positive", ["no", "yes"])
def test_margins_of_support_vectors_follow_the_positive_class(positive: str) -> None:
    model = fitted(SVC(), TWO)
    subject = wrapped(model, X[:12], X[12:50], positive_class=positive)
    found, caveats = explainers.explain(subject, config=CONFIG, seeds=SEEDS)
    assert (found.method.name, found.output_space, caveats) == ("product_kernel", "margin", ())
    total = (found.values.sum(axis=1) + found.base_values)[:, 0]
    assert_allclose(total, (1 if positive == "yes" else -1) * model.decision_function(X[:12]), atol=1e-9)


def test_support_vectors_with_a_linear_kernel_have_the_closed_form() -> None:
    subject = wrapped(fitted(SVR(kernel="linear"), Y), X[:12], X[12:50])
    found, caveats = explainers.explain(subject, config=CONFIG, seeds=SEEDS)
    assert (found.method.name, caveats) == ("linear", ())
    exact = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert_allclose(found.values, exact.values, atol=1e-9)


three = np.asarray(pd.qcut(Y, 3, labels=["a", "b", "c"]).astype(str))
REFUSED: dict[str, tuple[Any, Any, str, dict[str, Any]]] = {
    "another kernel": (SVR(kernel="poly", degree=2), Y, "'poly' kernel of SVR", {}),
    "an own kernel": (SVR(kernel=lambda a, b: a @ b.T), Y, "the own kernel of SVR", {}),
    "another kernel ridge": (KernelRidge(kernel="laplacian"), Y, "'laplacian' kernel", {}),
    "several classes": (SVC(), three, "votes of pairs", {}),
    "probabilities": (SVC(probability=True), TWO, "output='margin' is exact", {"output": "probability"}),
    "another process": (
        GaussianProcessRegressor(RBF(1.0) + Matern(1.0), alpha=0.1, optimizer=None),
        Y,
        "the Matern kernel",
        {},
    ),
}


@pytest.mark.filterwarnings("ignore:.*probability.*:FutureWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sum_of_products_is_said_and_explained_otherwise(name: str) -> None:
    estimator, y, reason, options = REFUSED[name]
    subject = wrapped(fitted(estimator, y), X[:6], X[15:40], **options)
    assert reason in str(KERNEL.why_not(subject))
    found, _ = explainers.explain(subject, config=CONFIG, seeds=SEEDS)
    assert found.method.name == "enumeration"


def test_a_machine_that_is_read_wrongly_is_not_used() -> None:
    subject = wrapped(fitted(SVR(), Y), X[:6], X[15:40])
    read = kernel_machines.read

    def wrong(native: Any) -> Any:
        machine = read(native)
        return kernel_machines.Machine(
            points=machine.points * 1.001, terms=machine.terms, intercept=machine.intercept
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_machines, "read", wrong)
        assert "not the sum of its kernels" in str(KERNEL.why_not(subject))


def arrays(seed: int, *, rows: int, derived: int, features: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    sources = np.concatenate([np.arange(features), rng.integers(0, features, derived - features)])
    shown, others, points = (rng.normal(size=(n, derived)) for n in (rows, 23, 9))
    shown[0] = others[0]
    return shown, others, points, rng.normal(size=(2, 9)), sources


def brute_force(shown: FloatArray, others: FloatArray, points: FloatArray, weights: Any, sources: Any) -> Any:
    from explain_step.explainers.coalition_games import coalitions, shapley

    features = int(sources.max()) + 1
    game = np.empty((len(shown), 2**features, len(weights)))
    for s, mask in enumerate(coalitions(features, np.arange(features))[:, sources]):
        rows = np.where(mask, shown[:, None], others[None])
        square = ((rows[:, :, None] - points) ** 2).sum(axis=3)
        game[:, s] = (np.exp(-square) @ weights.T).mean(axis=1)
    return shapley(game)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), features=st.integers(1, 6), more=st.integers(0, 4))
def test_products_of_any_size_have_their_shapley_values(seed: int, features: int, more: int) -> None:
    shown, others, points, weights, sources = arrays(seed, rows=3, derived=features + more, features=features)
    found = product_games.values(shown, others, points, weights=weights, sources=sources, features=features)
    assert_allclose(found, brute_force(shown, others, points, weights, sources), atol=1e-13)


@pytest.mark.skipif(
    not tree_compiled.available(),
    reason="compares two engines, and one is compiled by Numba (extra fast), which .ci/run has",
)
@pytest.mark.parametrize("apart", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("features", [1, 2, 7, 40])
def test_both_engines_agree_whatever_the_number_of_threads(
    features: int, apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, others, points, weights, sources = arrays(1, rows=70, derived=features + 3, features=features)
    shown, others, points = shown * apart, others * apart, points * apart
    given_ = {"weights": weights, "sources": sources, "features": features}
    plain = product_games.values(shown, others, points, **given_)
    monkeypatch.setattr(product_games, "SMALL_WORK", 0)
    compiled = product_games.values(shown, others, points, **given_)
    assert_allclose(compiled, plain, atol=1e-13)
    monkeypatch.setattr(tree_compiled, "processors", lambda: 1)
    assert (product_games.values(shown, others, points, **given_) == compiled).all()
    some = product_games.values(shown[:40], others, points, **given_)
    assert (some == compiled[:40]).all()


def test_factors_that_vanish_leave_finite_values() -> None:
    shown, others, points, weights, sources = arrays(2, rows=4, derived=5, features=5)
    found = product_games.values(
        shown * 100, others * 100, points, weights=weights, sources=sources, features=5
    )
    assert np.isfinite(found).all()


def test_a_short_budget_takes_fewer_rows_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "FEWEST", 10)
    monkeypatch.setattr(kernel, "PER_SECOND", 1e6)
    monkeypatch.setattr(kernel, "WITH_NUMPY", 1e6)
    subject = wrapped(fitted(SVR(), Y), X, X)
    found, caveats = explainers.explain(subject, config=Config(budget=1.0), seeds=SEEDS)
    facts = found.method.params
    assert 10 <= facts["background_rows"] < len(found.rows) < facts["background_given"] == N
    assert {"rows_sampled", "background_sampled"} <= {c.code for c in caveats}
    assert explainers.not_additive(subject, found) is None
