"""Walks that are not predicted: the sums on the way, the values that come of them, and what happens where they are wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits
from tree_kit import make_subject, mixed_frame

from explain_step.config import Config
from explain_step.explainers import masking, planning, tree_compiled, tree_masks, walk_scores
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.permutation import PERMUTATION
from explain_step.explainers.walks import draw_walks
from explain_step.seeds import Seeds
from explain_step.types import Subject

X, Y = mixed_frame(400)
NUMBERS = X[["a", "b"]].assign(flag=X.flag.astype(float), zone=X.zone.cat.codes.astype(float)).fillna(0.5)
TWO, THREE = (Y > 1).astype(int), np.digitize(Y, [0, 1.5])
SEEDS = Seeds(3)
CONFIG = Config(budget=1e6)


@pytest.fixture(autouse=True)
def _always_by_scores(monkeypatch):
    """Small work goes through the trees as well; tiny models are faster on one OpenMP thread."""
    monkeypatch.setattr(tree_compiled, "SMALL_WORK", -1)
    with threadpool_limits(limits=1):
        yield


def pipeline(final):
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    number = make_pipeline(SimpleImputer(), StandardScaler())
    return make_pipeline(make_column_transformer((text, ["zone"]), (number, ["a", "b"])), final)


def boosted(y):
    return HistGradientBoostingClassifier(max_iter=8, random_state=0).fit(NUMBERS, y), NUMBERS


def logistic(y):
    return pipeline(LogisticRegression()).fit(X, y), X


def gradient(y):
    return pipeline(GradientBoostingClassifier(n_estimators=8, random_state=0)).fit(X, y), X


def xgboost(y):
    library = pytest.importorskip("xgboost")
    return library.XGBClassifier(n_estimators=8, enable_categorical=True, n_jobs=1).fit(X, y), X


def lightgbm(y):
    library = pytest.importorskip("lightgbm")
    return library.LGBMClassifier(n_estimators=8, verbose=-1, n_jobs=1).fit(X, y), X


def scores_of(subject: Subject) -> walk_scores.Scores:
    found = walk_scores.of(subject.model, subject.X, subject.background, evaluations=planning.EVALUATIONS)
    assert found is not None
    return found


MODELS = pytest.mark.parametrize("fit", [boosted, logistic, gradient, xgboost, lightgbm])


@MODELS
@pytest.mark.parametrize("y", [TWO, THREE], ids=["binary", "multiclass"])
def test_the_sums_on_the_way_give_what_the_model_predicts(fit, y):
    model, frame = fit(y)
    subject = make_subject(model, frame[60:200], frame[:60])
    walks = draw_walks(np.arange(140), np.zeros((60, 1)), pairs=2, columns=frame.shape[1], seeds=SEEDS)
    raw = scores_of(subject).along(walks.order, walks.row, walks.partner)
    answers = walk_scores.probability(raw.reshape(-1, raw.shape[-1])).reshape(raw.shape)
    for way, order in enumerate((walks.order, walks.order[:, ::-1])):
        for step in range(frame.shape[1] + 1):
            mixed = subject.background.iloc[walks.partner].reset_index(drop=True)
            own = subject.X.iloc[walks.row].reset_index(drop=True)
            for j, name in enumerate(frame):
                switched = np.argsort(order, axis=1)[:, j] < step
                mixed[name] = own[name].where(switched, mixed[name]).astype(frame[name].dtype)
            np.testing.assert_allclose(answers[:, way, step], subject.model.predict(mixed), atol=2e-6)
    assert np.ptp(answers) > 0.05


@MODELS
@pytest.mark.parametrize("y", [TWO, THREE], ids=["binary", "multiclass"])
def test_the_values_are_those_of_all_coalitions_within_their_standard_errors(fit, y):
    model, frame = fit(y)
    subject = make_subject(model, frame[60:100], frame[:60])
    found = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert "answers_along_walks" in found.method.params
    assert found.method.params["predicted_rows"] == 60
    assert found.standard_error is not None
    truth = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS).values
    off = np.abs(found.values - truth) / np.maximum(found.standard_error, 1e-9)
    assert (off < 3).mean() > 0.98
    assert (off < 6).all()
    output = subject.model.predict(subject.X)
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base_values, output, atol=1e-9)


@MODELS
def test_the_noise_is_less_than_that_of_as_many_predicted_walks(fit, monkeypatch):
    monkeypatch.setattr(planning, "plan", lambda **_: planning.Plan(rows=100, pairs=20))
    model, frame = fit(TWO)
    subject = make_subject(model, frame[100:200], frame[:100])
    known = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    monkeypatch.setattr(walk_scores, "of", lambda *_, **__: None)
    predicted = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert known.values.shape == predicted.values.shape
    assert predicted.method.params["predicted_rows"] > 1_000
    assert (known.standard_error**2).mean() < 0.9 * (predicted.standard_error**2).mean()


def test_a_column_that_the_model_does_not_use_or_that_never_differs_has_exactly_nothing():
    frame = NUMBERS.assign(same=1.0, unused=np.arange(400) % 7)
    model = HistGradientBoostingClassifier(max_iter=8, max_features=1.0).fit(frame.assign(unused=0.0), TWO)
    subject = make_subject(model, frame[60:100], frame[:60])
    found = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert "answers_along_walks" in found.method.params
    assert not found.values[:, [4, 5]].any()
    assert not found.standard_error[:, 4].any()


class Cooler(LogisticRegression):
    """Predicts something else than its coefficients say."""

    def predict_proba(self, X):
        score = self.decision_function(X) / 2
        positive = 1 / (1 + np.exp(-score))
        return np.column_stack([1 - positive, positive])


def test_where_the_terms_do_not_give_the_models_answer_it_is_asked():
    model = Cooler().fit(NUMBERS, TWO)
    subject = make_subject(model, NUMBERS[60:100], NUMBERS[:60])
    subject = dataclasses.replace(
        subject, model=dataclasses.replace(subject.model, family="linear", native=model)
    )
    assert scores_of(subject) is not None
    found = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    assert "answers_along_walks" not in found.method.params
    assert found.method.params["predicted_rows"] > 60
    truth = ENUMERATION.explain(subject, config=CONFIG, seeds=SEEDS).values
    np.testing.assert_allclose(found.values, truth, atol=6 * found.standard_error.max())


def test_forests_and_margins_have_no_link_to_look_behind():
    model, frame = boosted(TWO)
    for subject in (
        make_subject(model, frame[60:100], frame[:60], output="margin"),
        make_subject(lambda rows: np.asarray(rows.a), frame[60:100], frame[:60]),
    ):
        model_of = subject.model
        assert walk_scores.of(model_of, subject.X, subject.background, evaluations=10**6) is None


def test_the_numbers_do_not_depend_on_threads_or_on_calls(monkeypatch):
    model, frame = boosted(TWO)
    subject = make_subject(model, frame[60:160], frame[:60])
    whole = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    monkeypatch.setattr(walk_scores, "AT_ONCE", 10**6)
    monkeypatch.setattr(tree_masks, "processors", lambda: 7)
    pieces = PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS)
    np.testing.assert_array_equal(whole.values, pieces.values)
    np.testing.assert_array_equal(whole.standard_error, pieces.standard_error)


def test_what_the_first_call_compiles_says_nothing_about_the_speed_of_the_next(monkeypatch):
    """Eight pairs and two seconds of compiling: a budget of twenty seconds ended with 2 of 25,000 rows."""
    time = [0.0]
    monkeypatch.setattr(masking, "_now", lambda: time[0])
    model, rows = boosted(TWO)
    subject = make_subject(model, rows[:60], rows[100:160])
    scores = scores_of(subject)
    asked = []

    def along(order, row, partner):
        time[0] += 0.001 * len(order) if asked else 2.0
        asked.append(len(order))
        return scores.along(order, row, partner)

    start = subject.model.predict(subject.background)
    walks = draw_walks(np.arange(60), start, pairs=8, columns=len(rows.columns), seeds=SEEDS, batch=0)
    slow = dataclasses.replace(scores, along=along)
    clock = masking.Clock(4.0, started=0.0)
    found, _ = walk_scores.walk(slow, walks, start=start, end=subject.response.output, clock=clock, sure=2)
    assert len(found) == sum(asked) == 480


def test_the_clock_cuts_walks_that_are_not_predicted_too():
    model, frame = boosted(TWO)
    subject = make_subject(model, frame[60:400], frame[:60])
    found = PERMUTATION.explain(subject, config=Config(budget=1e-9), seeds=SEEDS)
    assert found.method.budget is not None
    assert 1 <= len(found.rows) < 340
    output = subject.model.predict(subject.X.iloc[found.rows])
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base_values, output, atol=1e-9)


def test_all_rows_are_explained_where_walks_cost_no_predictions():
    few = planning.plan(n=10_000, m=1000, columns=15, width=15, outputs=1, max_rows=None)
    all_of_them = planning.plan(
        n=10_000, m=1000, columns=15, width=15, outputs=1, max_rows=None, walked=400_000
    )
    assert few.rows < 1_000
    assert (all_of_them.rows, all_of_them.pairs) == (10_000, 20)
    assert (
        planning.plan(n=500, m=1000, columns=15, width=15, outputs=1, max_rows=None, walked=400_000).pairs
        == 100
    )


def test_many_trees_are_asked_for_predictions(monkeypatch):
    monkeypatch.setattr(walk_scores, "WORDS", 8 * 20_000)
    model, frame = boosted(TWO)
    subject = make_subject(model, frame[60:100], frame[:60])
    assert scores_of(subject).pairs == 20_000
    assert "answers_along_walks" not in PERMUTATION.explain(subject, config=CONFIG, seeds=SEEDS).method.params


def test_large_tables_of_terms_are_not_made():
    wide = pd.DataFrame(np.zeros((10, 3)), columns=list("abc"))
    subject = make_subject(
        LogisticRegression().fit(NUMBERS.iloc[:, :3].set_axis(list("abc"), axis=1), TWO), wide, wide
    )
    assert walk_scores.of(subject.model, subject.X, subject.background, evaluations=1) is not None
    limit = walk_scores.MOST_TERMS
    try:
        walk_scores.MOST_TERMS = 59
        assert walk_scores.of(subject.model, subject.X, subject.background, evaluations=1) is None
    finally:
        walk_scores.MOST_TERMS = limit
