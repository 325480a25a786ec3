"""Correlation-dependent values of linear models, against the formula, regressions on every coalition, and shap."""

from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_linear import folded_pipeline, table, wrapped

from explain_step import explainers
from explain_step.config import Config
from explain_step.errors import InvalidInput
from explain_step.explainers import linear_correlation, regression_games
from explain_step.explainers.linear import LINEAR
from explain_step.explainers.linear_correlation import LINEAR_CORRELATION
from explain_step.seeds import Seeds
from explain_step.types import Attributions, Subject

CONFIG = Config(feature_perturbation="correlation_dependent")
SEEDS = Seeds(0)


def found_in(subject: Subject) -> Attributions:
    return LINEAR_CORRELATION.explain(subject, config=CONFIG, seeds=SEEDS)


def correlated(covariance: Any, *, rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Return rows with mean zero and exactly this covariance."""
    wanted = np.asarray(covariance, dtype=np.float64)
    Z = np.random.default_rng(seed).normal(size=(rows, len(wanted)))
    Z -= Z.mean(axis=0)
    white = Z @ np.linalg.inv(np.linalg.cholesky(Z.T @ Z / rows)).T
    return pd.DataFrame(white @ np.linalg.cholesky(wanted).T, columns=[f"x{j}" for j in range(len(wanted))])


def linear(background: pd.DataFrame, weights: Any) -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit(
        background, background.to_numpy() @ np.asarray(weights, dtype=np.float64) + 3
    )


def by_regressions(
    derived: np.ndarray, shown: np.ndarray, weights: np.ndarray, sources: list[int]
) -> np.ndarray:
    """Return the values (n, d) straight from the definition: a least-squares fit of the output on each coalition."""
    d, column = max(sources) + 1, np.array(sources)
    centre = derived.mean(axis=0)
    known, rows = derived - centre, shown - centre

    def worth(coalition: tuple[int, ...]) -> np.ndarray:
        at = np.isin(column, coalition)
        told = np.linalg.lstsq(known[:, at], known[:, ~at] @ weights[~at], rcond=1e-9)[0] if at.any() else 0.0
        return rows[:, at] @ weights[at] + (rows[:, at] @ told if at.any() else 0.0)

    values = np.zeros((len(rows), d))
    for j in range(d):
        others = [i for i in range(d) if i != j]
        for size in range(d):
            share = factorial(size) * factorial(d - size - 1) / factorial(d)
            for coalition in combinations(others, size):
                values[:, j] += share * (worth((*coalition, j)) - worth(coalition))
    return values


def test_equally_correlated_columns_have_the_published_values() -> None:
    """Conditional Shapley values of 4 x0 + 3 x1 + 2 x2 + x3 at ones, with correlation 0.5; x4 is not used."""
    B = correlated(np.full((5, 5), 0.5) + 0.5 * np.eye(5))
    model = linear(B, [4, 3, 2, 1, 0])
    subject = wrapped(model, pd.DataFrame(np.ones((1, 5)), columns=B.columns), B)
    found = found_in(subject)
    wanted = [2.641666667, 2.320833333, 2.0, 1.679166667, 1.358333333]
    assert np.allclose(found.values[0, :, 0], wanted, atol=1e-9)
    assert found.method.exact
    assert found.method.params["feature_perturbation"] == "correlation_dependent"


def test_it_is_what_shap_estimates() -> None:
    shap = pytest.importorskip("shap", reason="the oracle is the optional package shap")
    rng = np.random.default_rng(1)
    B = pd.DataFrame(rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)), columns=list("abcd"))
    model = linear(B, [1.0, -2.0, 0.0, 0.5])
    X = B.iloc[:30]
    state = np.random.get_state()  # noqa: NPY002 - shap draws from it
    try:
        np.random.seed(0)  # noqa: NPY002
        masker = shap.maskers.Impute(B)
        theirs = shap.LinearExplainer(model, masker, nsamples=4000).shap_values(X)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    ours = found_in(wrapped(model, X, B)).values[:, :, 0]
    interventional = LINEAR.explain(wrapped(model, X, B), config=Config(), seeds=SEEDS).values[:, :, 0]
    spread = model.predict(X).std()
    assert np.abs(ours - theirs).max() < 0.06 * spread
    assert np.abs(interventional - theirs).max() > 0.3 * spread


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_it_is_the_definition_for_any_blocks_of_columns(data: st.DataObject) -> None:
    """Constants, copies, sums of columns and one-hot blocks among them."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    widths = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    rng = np.random.default_rng(seed)
    p = sum(widths)
    derived = rng.normal(size=(60, p)) @ rng.normal(size=(p, p))
    for _ in range(data.draw(st.integers(0, 2))):
        at = int(rng.integers(p))
        kind = data.draw(st.sampled_from(["constant", "copy", "sum", "binary"]))
        other = derived[:, int(rng.integers(p))]
        derived[:, at] = {
            "constant": np.full(60, 7.0),
            "copy": other,
            "sum": other + derived[:, int(rng.integers(p))],
            "binary": (other > np.median(other)) * 1.0,
        }[kind]
    derived = derived * rng.choice([1e-3, 1.0, 1e3], p)
    sources = [j for j, width in enumerate(widths) for _ in range(width)]
    weights = rng.normal(size=p)
    rows = derived[:8]
    fitted = _model(weights, sources)
    known = linear_correlation.regression(fitted, pd.DataFrame(derived))
    own, coordinates = known.terms(fitted, pd.DataFrame(rows))
    found = (own + np.tensordot(coordinates, regression_games.shapley(known.game), axes=1))[:, :, 0]
    wanted = by_regressions(
        derived / derived_scale(derived),
        rows / derived_scale(derived),
        weights * derived_scale(derived),
        sources,
    )
    scale = np.abs(rows * weights).max()
    assert np.abs(found - wanted).max() <= 1e-5 * scale


def derived_scale(derived: np.ndarray) -> np.ndarray:
    spread = derived.std(axis=0)
    return np.where(spread > 0, spread, 1.0)


def _model(weights: np.ndarray, sources: list[int]) -> Any:
    """Return a linear model of raw columns whose derived columns are given."""
    from types import SimpleNamespace

    from explain_step.types import Preprocessing

    return SimpleNamespace(
        native=SimpleNamespace(coef_=weights, intercept_=0.0),
        task="regression",
        positive=None,
        output_names=("y",),
        feature_names=tuple(f"c{j}" for j in range(max(sources) + 1)),
        preprocessing=Preprocessing(transform=lambda X: X.to_numpy(), sources=tuple(sources)),
    )


def test_through_a_pipeline_the_levels_of_a_category_become_known_together() -> None:
    from sklearn.linear_model import Ridge

    X, y = table(300)
    model = folded_pipeline(Ridge(alpha=0.1)).fit(X, y)
    subject = wrapped(model, X.iloc[:40], X)
    found = found_in(subject)
    transform, sources = subject.model.preprocessing.transform, subject.model.preprocessing.sources
    derived = np.asarray(_dense(transform(X)), dtype=np.float64)
    wanted = by_regressions(derived, derived[:40], model[-1].coef_.ravel(), list(sources))
    assert np.abs(found.values[:, :, 0] - wanted).max() < 1e-8 * np.abs(wanted).max()
    total = found.base_values[:, 0] + found.values.sum(axis=1)[:, 0]
    assert np.allclose(total, model.predict(X.iloc[:40]), atol=1e-9)


def _dense(matrix: Any) -> Any:
    return matrix.toarray() if hasattr(matrix, "toarray") else matrix


def test_a_level_that_no_background_row_has_still_sums_to_the_output() -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    X, y = table(300)
    steps = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["kind"]), ("passthrough", ["size", "age"])
    )
    model = make_pipeline(steps, Ridge()).fit(X, y)
    odd = X.iloc[:3].assign(kind="castle")
    found = found_in(wrapped(model, odd, X))
    assert np.allclose(found.base_values[:, 0] + found.values.sum(axis=1)[:, 0], model.predict(odd))


@pytest.mark.parametrize("weights", [[1.0, 1.0, 2.0], [2.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
def test_a_row_that_breaks_what_holds_in_all_background_rows_still_sums_to_the_output(weights: Any) -> None:
    B = correlated([[1.0, 0.3], [0.3, 1.0]]).assign(copy=lambda frame: frame["x0"])
    model = linear(B, weights)
    model.coef_[:], model.intercept_ = weights, 0.0
    odd = B.iloc[:3].assign(copy=lambda frame: frame["x0"] + 5)
    found = found_in(wrapped(model, odd, B))
    assert np.allclose(found.base_values[:, 0] + found.values.sum(axis=1)[:, 0], model.predict(odd))


def test_uncorrelated_columns_have_their_interventional_values() -> None:
    B = correlated(np.diag([1.0, 4.0, 9.0]))
    subject = wrapped(linear(B, [1.0, -1.0, 2.0]), B.iloc[:10], B)
    assert np.allclose(
        found_in(subject).values, LINEAR.explain(subject, config=Config(), seeds=SEEDS).values, atol=1e-9
    )


def test_copies_of_a_column_share_their_credit_whichever_the_model_uses() -> None:
    B = correlated([[1.0, 0.3], [0.3, 1.0]]).assign(copy=lambda frame: frame["x0"])
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(B, B["x0"])
    model.coef_[:], model.intercept_ = [2.0, 0.0, 0.0], 0.0
    values = found_in(wrapped(model, B.iloc[:10], B)).values[:, :, 0]
    assert np.allclose(values[:, 0], values[:, 2])
    assert np.abs(values[:, 1]).min() > 0


def test_units_of_a_column_do_not_matter() -> None:
    B = correlated([[1.0, 0.8, 0.1], [0.8, 1.0, 0.4], [0.1, 0.4, 1.0]])
    model = linear(B, [1.0, 2.0, 3.0])
    values = found_in(wrapped(model, B.iloc[:5], B)).values
    units = np.array([1e3, 1.0, 1e-6])
    model.coef_, other = model.coef_ / units, B * units
    assert np.allclose(values, found_in(wrapped(model, other.iloc[:5], other)).values, atol=1e-9)


def test_classes_in_their_margin_have_their_own_values() -> None:
    from sklearn.linear_model import LogisticRegression

    B = correlated([[1.0, 0.6], [0.6, 1.0]])
    y = np.digitize(B["x0"], [-0.5, 0.5])
    model = LogisticRegression().fit(B, y)
    subject = wrapped(model, B.iloc[:10], B, output="margin")
    found = found_in(subject)
    assert found.values.shape == (10, 2, 3)
    for k in range(3):
        wanted = by_regressions(B.to_numpy(), B.to_numpy()[:10], model.coef_[k], [0, 1])
        assert np.allclose(found.values[:, :, k], wanted, atol=1e-9)


def test_many_coalitions_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    B = pd.DataFrame(rng.normal(size=(200, 7)) @ rng.normal(size=(7, 7)), columns=list("abcdefg"))
    subject = wrapped(linear(B, np.arange(7.0)), B.iloc[:5], B)
    whole = found_in(subject).values
    monkeypatch.setattr(regression_games, "AT_ONCE", 50)
    assert np.allclose(found_in(subject).values, whole, atol=1e-12)


def test_what_is_expected_of_known_columns_is_a_regression_on_them() -> None:
    B = correlated([[1.0, 0.8, 0.1], [0.8, 1.0, 0.4], [0.1, 0.4, 1.0]])
    model = linear(B, [1.0, 2.0, 3.0])
    subject = wrapped(model, B.iloc[:4], B)
    known = linear_correlation.regression(subject.model, B)
    members = np.array([[True, False, False], [False, True, True], [True, True, True], [False, False, False]])
    found = linear_correlation.expected(known, subject.model, B.iloc[:4], members=members)[:, 0]
    x, y = B.to_numpy(), model.predict(B)
    wanted = [
        3 + x[0, 0] * (x[:, 0] @ y) / (x[:, 0] @ x[:, 0]),
        3 + x[1, 1:] @ np.linalg.lstsq(x[:, 1:], y - 3, rcond=None)[0],
        y[2],
        3.0,
    ]
    assert np.allclose(found, wanted)


@pytest.mark.parametrize(
    ("columns", "background", "said"),
    [(30, 400, "all coalitions of 30 columns"), (30, 30, "30 background rows do not tell")],
)
def test_what_cannot_be_done_is_refused_with_the_reason(columns: int, background: int, said: str) -> None:
    rng = np.random.default_rng(0)
    B = pd.DataFrame(rng.normal(size=(background, columns)), columns=[f"x{j}" for j in range(columns)])
    subject = wrapped(linear(B, rng.normal(size=columns)), B.iloc[:5], B)
    with pytest.raises(InvalidInput, match=rf"feature_perturbation must be 'interventional'.*{said}"):
        explainers.explain(subject, config=CONFIG, seeds=SEEDS)


def test_a_probability_and_a_tree_have_no_such_values() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeRegressor

    B = correlated([[1.0, 0.6], [0.6, 1.0]])
    label = (B["x0"] > 0).astype(int)
    for model, why in (
        (LogisticRegression().fit(B, label), "output='margin' is exact"),
        (DecisionTreeRegressor(max_depth=2).fit(B, B["x0"]), "not of the linear family"),
    ):
        with pytest.raises(InvalidInput, match=why):
            explainers.explain(wrapped(model, B.iloc[:5], B), config=CONFIG, seeds=SEEDS)


def test_few_background_rows_for_the_columns_are_told() -> None:
    rng = np.random.default_rng(0)
    B = pd.DataFrame(rng.normal(size=(60, 8)), columns=[f"x{j}" for j in range(8)])
    model = linear(B, rng.normal(size=8))
    _, few = explainers.explain(wrapped(model, B.iloc[:5], B), config=CONFIG, seeds=SEEDS)
    _, many = explainers.explain(wrapped(model, B.iloc[:5], pd.concat([B] * 2)), config=CONFIG, seeds=SEEDS)
    assert [c.code for c in few] == ["correlation_dependent", "thin_background"]
    assert [c.degrades for c in few] == [False, True]
    assert [c.code for c in many] == ["correlation_dependent"]


def test_rows_unlike_all_background_rows_are_told() -> None:
    rng = np.random.default_rng(0)
    B = pd.DataFrame(rng.normal(size=(400, 3)), columns=list("abc"))
    B["b"] = B["a"] + 1e-3 * B["b"]
    B["copy"] = B["c"]
    model = linear(B, [1.0, 1.0, 1.0, 1.0])
    usual = B.iloc[:20]
    apart = usual.copy()
    apart.iloc[0, 1] += 5  # far from the line of a and b
    apart.iloc[1, 3] += 5  # no copy any more
    for rows, found in ((usual, 0), (apart, 2)):
        values, caveats = explainers.explain(wrapped(model, rows, B), config=CONFIG, seeds=SEEDS)
        assert values.method.params["rows_outside"] == found
        said = [c for c in caveats if c.code == "rows_outside_background"]
        assert [c.degrades for c in said] == [True] * bool(found)
        assert all(f"{found} of the 20 explained rows" in c.message for c in said)
