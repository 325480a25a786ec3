"""Mixed rows behind a Pipeline's column-wise steps: the same answers, with every given row transformed once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

import explain_step
from explain_step import models
from explain_step.config import Config
from explain_step.explainers import masking

RNG = np.random.default_rng(11)
N, M, E = 30, 50, 400
X = pd.DataFrame(
    {
        "size": RNG.normal(90, 20, N + M),
        "kind": RNG.choice(["flat", "house", "farm"], N + M),
        "age": RNG.integers(0, 100, N + M).astype(np.float64),
        "area": RNG.choice(list("abcdefgh"), N + M),
    }
)
Y = (X["size"] / 20 + (X["kind"] == "farm") * X["age"] / 30 + RNG.normal(0, 0.3, N + M) > 5).astype(int)


def steps(*, sparse: bool = False, numbers: Any = None) -> Any:
    return make_column_transformer(
        (OneHotEncoder(sparse_output=sparse), ["kind", "area"]),
        (numbers or StandardScaler(), ["size", "age"]),
        sparse_threshold=1.0 if sparse else 0.0,
    )


def network() -> Any:
    return MLPClassifier((5,), max_iter=40, random_state=0, solver="lbfgs")


MODELS: dict[str, Any] = {
    "arrays": make_pipeline(steps(), network()),
    "sparse matrices": make_pipeline(steps(sparse=True), network()),
    "frames": make_pipeline(steps().set_output(transform="pandas"), network()),
    "neighbours": make_pipeline(steps(), KNeighborsClassifier(7)),
    "two steps": make_pipeline(steps(), StandardScaler(), network()),
    "support vectors": make_pipeline(steps(sparse=True), SVC(kernel="poly")),
    "a regression": make_pipeline(
        steps(), MLPRegressor(hidden_layer_sizes=(5,), max_iter=40, random_state=0, solver="lbfgs")
    ),
}


def pools(model: Any) -> tuple[masking.Pool, masking.Pool]:
    fitted = models.wrap(model, frame=X, config=Config())
    raw = masking.pool(fitted, X[:N], X[N:].reset_index(drop=True))
    return raw, masking.with_derived(raw)


def answers(pool: masking.Pool) -> Any:
    rng = np.random.default_rng(1)
    masks = rng.random((E, X.shape[1])) < 0.5
    rows, partners = rng.integers(0, N, E), rng.integers(0, M, E)
    return masking.evaluate(pool, rows=rows, partners=partners, masks=lambda part: masks[part])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_to_raw_rows(name: str) -> None:
    raw, derived = pools(MODELS[name].fit(X, Y))
    assert derived.derived is not None
    assert_allclose(answers(derived), answers(raw), rtol=1e-9, atol=1e-12)
    assert_allclose(masking.of_background(derived), masking.of_background(raw), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_each_given_row_is_transformed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_pipeline(steps(), network()).fit(X, Y)
    raw, derived = pools(model)
    seen: list[int] = []
    real = StandardScaler.transform

    def counted(self: Any, rows: Any, **options: Any) -> Any:
        seen.append(len(rows))
        return real(self, rows, **options)

    monkeypatch.setattr(StandardScaler, "transform", counted)
    answers(derived)
    assert sum(seen) == 0
    answers(raw)
    assert sum(seen) == E
    seen.clear()
    masking.with_derived(raw)
    assert sum(seen) == N + M + masking.TRIED_ROWS


def of_the_batch(rows: Any) -> Any:
    return rows - np.asarray(rows).mean()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "front",
    [
        steps(numbers=FunctionTransformer(of_the_batch)),  # an answer depends on the other rows asked about
        make_pipeline(steps(), PCA(3)),
    ],
    ids=["batches", "mixed columns"],
)
def test_steps_that_are_not_column_by_column_are_asked_every_time(front: Any) -> None:
    raw, derived = pools(make_pipeline(front, network()).fit(X, Y))
    assert derived is raw


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_final_estimator_that_refuses_derived_rows_is_asked_through_its_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_pipeline(steps(), network()).fit(X, Y)
    raw = pools(model)[0]
    monkeypatch.setattr(masking.derived_rows, "_container", lambda _: lambda block: block[:, :3])
    assert masking.with_derived(raw) is raw


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_frames_of_several_types_and_large_tables_are_asked_through_their_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = X.assign(age=X["age"].astype(np.int64))
    mixed = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["kind", "area"]), remainder="passthrough"
    )
    model = make_pipeline(mixed.set_output(transform="pandas"), network()).fit(whole, Y)
    fitted = models.wrap(model, frame=whole, config=Config())
    raw = masking.pool(fitted, whole[:N], whole[N:].reset_index(drop=True))
    assert masking.with_derived(raw) is raw
    for limit, most in (("MOST_CELLS", 13 * (N + M) - 1), ("MOST_WIDER", 3)):  # 13 derived columns of 4
        raw, derived = pools(make_pipeline(steps(), network()).fit(X, Y))
        assert derived is not raw
        monkeypatch.setattr(masking.derived_rows, limit, most)
        assert masking.with_derived(raw) is raw
        monkeypatch.undo()


def test_without_steps_nothing_is_derived() -> None:
    numbers = X[["size", "age"]]
    fitted = models.wrap(KNeighborsClassifier().fit(numbers, Y), frame=numbers, config=Config())
    raw = masking.pool(fitted, numbers[:N], numbers[N:].reset_index(drop=True))
    assert masking.with_derived(raw) is raw


def test_a_zero_with_a_sign_is_another_value(tmp_path) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"zero": np.where(rng.random(60) < 0.5, 0.0, -0.0), "other": rng.normal(size=60)})

    def signs(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.signbit(rows["zero"].to_numpy()) + 0.0

    shot = explain_step.explain(signs, X, task="regression", background=X, directory=tmp_path)
    means = shot.tables["importance"].set_index("feature")["mean_abs_shap"]
    assert means["zero"] > 0.4
    assert means["other"] == pytest.approx(0, abs=1e-9)
    assert "constant_columns" not in {caveat["code"] for caveat in shot.manifest["caveats"]}
