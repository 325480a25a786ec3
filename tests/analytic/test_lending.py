"""Rows with one column's value taken from elsewhere: what trees answer against what the model says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits
from tree_kit import hand_made, make_subject, mixed_frame, random_tree

from explain_step.artifacts import dependence, permutation_importance, predicting
from explain_step.config import Config
from explain_step.explainers import ensembles, explain, masking, tree_codes, tree_compiled, tree_masks
from explain_step.explainers.lending import Lending, from_trees
from explain_step.seeds import Seeds
from explain_step.types import Subject

X, Y = mixed_frame(500)
NUMBERS = X[["a", "b"]].assign(flag=X.flag.astype(float), zone=X.zone.cat.codes.astype(float)).fillna(0.5)
TWO, THREE = (Y > 1).astype(int), np.digitize(Y, [0, 1.5])
CELLS = np.array([-np.inf, -2.0, -1.0, 0.0, 5e-324, 0.25, 1.0, 5.0, np.inf, np.nan])
GRID = np.array([-np.inf, -1.0, -5e-324, 0.0, 0.5, 1.0, np.inf])


@pytest.fixture(autouse=True)
def _always_by_trees(monkeypatch):
    """Small work goes through the trees as well; tiny models are faster on one OpenMP thread."""
    monkeypatch.setattr(tree_compiled, "SMALL_WORK", -1)
    with threadpool_limits(limits=1):
        yield


def lendings_of(base: pd.DataFrame, *, queries: int = 60, seed: int = 0) -> list[Lending]:
    """Return rows that are lent other rows' values, once for each column."""
    rng = np.random.default_rng(seed)
    return [
        Lending(
            base=base, feature=name, values=base[name].iloc[:40].array,
            row=rng.integers(0, len(base), queries), value=rng.integers(0, 40, queries),
        )
        for name in base
    ]  # fmt: skip


def check(subject: Subject) -> None:
    """Compare every answer, and what metrics read, with the model's own."""
    lendings = lendings_of(subject.X)
    found = from_trees(subject.model, lendings)
    assert found is not None
    for one, answer in zip(lendings, found, strict=True):
        own = subject.model.respond(one.frame())
        np.testing.assert_allclose(answer.output, own.output, atol=1e-5)
        if own.probability is not None:
            np.testing.assert_allclose(answer.probability, own.probability, atol=1e-5)
            assert answer.label is None or np.array_equal(answer.label, own.label)
    assert max(np.ptp(answer.output) for answer in found) > 0


@pytest.mark.parametrize("y", [TWO, THREE, np.array(["no", "yes"])[TWO]], ids=["two", "three", "text"])
@pytest.mark.parametrize("output", ["probability", "margin"])
def test_histogram_boosting_answers_with_its_trees(y, output):
    rows = X.assign(town=X.town.cat.codes.astype("float").where(X.town.notna()))
    model = HistGradientBoostingClassifier(max_iter=8, categorical_features=["town"])
    check(
        make_subject(
            model.fit(rows.astype(float), y), rows.astype(float), rows[:60].astype(float), output=output
        )
    )


@pytest.mark.parametrize("y", [TWO, THREE], ids=["binary", "multiclass"])
@pytest.mark.parametrize("options", [{}, {"booster": "dart", "rate_drop": 0.5}], ids=str)
@pytest.mark.parametrize("output", ["probability", "margin"])
def test_xgboost_answers_with_its_trees(y, options, output):
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=8, enable_categorical=True, n_jobs=1, **options).fit(X, y)
    check(make_subject(model, X, X[:60], output=output))


@pytest.mark.parametrize("y", [TWO, THREE], ids=["binary", "multiclass"])
def test_lightgbm_answers_with_its_trees(y):
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=8, verbose=-1, n_jobs=1).fit(X, y)
    check(make_subject(model, X, X[:60]))
    if y is TWO:
        check(make_subject(model, X, X[:60], positive_class="0"))


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (RandomForestClassifier(5, random_state=0), THREE),
        (RandomForestRegressor(5, random_state=0), Y),
        (ExtraTreesRegressor(5, random_state=0), np.column_stack([Y, -(Y**2)])),
        (GradientBoostingClassifier(n_estimators=6, random_state=0), TWO),
    ],
    ids=lambda case: type(case).__name__,
)
def test_trees_of_more_leaves_than_a_word_has_bits_and_of_several_outputs(model, y):
    model.fit(NUMBERS, y)
    members = [m[0] if isinstance(m, np.ndarray) else m for m in model.estimators_]
    assert "Boosting" in type(model).__name__ or max(m.get_n_leaves() for m in members) > 64
    check(make_subject(model, NUMBERS, NUMBERS[:60]))


def test_a_raw_column_behind_several_derived_ones_is_lent_as_a_whole():
    rows = X[["a", "b", "town"]].astype({"town": object})
    front = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["town"]), (SimpleImputer(add_indicator=True), ["a", "b"])
    )
    model = make_pipeline(front, RandomForestClassifier(5, random_state=0)).fit(rows, TWO)
    check(make_subject(model, rows, rows[:60]))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(("columns", "depth"), [(3, 5), (9, 9), (1, 4), (70, 6)])
def test_hand_made_trees_with_equal_thresholds_infinities_and_missing_values(columns, depth, outputs):
    rng = np.random.default_rng(columns)
    grown = [
        random_tree(rng, columns=columns, depth=depth, outputs=outputs, thresholds=GRID) for _ in range(5)
    ]
    ensemble = hand_made(grown, columns=columns, outputs=outputs)
    rows, lent = (rng.choice(CELLS, size=(columns, size)) for size in (300, 9))
    lent[:, 0] = np.nan
    rows[:, 250:] = 0.25  # so that a part of the rows has nothing missing
    forest = tree_masks.blocks(ensemble, places=np.arange(columns))
    queries = tree_masks.Queries(
        row=rng.integers(0, 300, 400), column=rng.integers(-1, columns, 400), value=rng.integers(0, 9, 400)
    )
    coded = (tree_codes.encode(forest.flat, part) for part in (rows, lent))
    got = tree_masks.exchanged(forest, *coded, queries, columns=columns) + ensemble.offset
    mixed = rows[:, queries.row].copy()
    asked = np.flatnonzero(queries.column >= 0)
    mixed[queries.column[asked], asked] = lent[queries.column[asked], queries.value[asked]]
    np.testing.assert_allclose(got, ensembles.predict(ensemble, mixed), atol=1e-12)


def test_what_does_not_change_a_leaf_changes_no_bit():
    model = RandomForestRegressor(20, random_state=0, max_depth=3).fit(NUMBERS, Y)
    base = make_subject(model, NUMBERS, NUMBERS[:60])
    row = np.arange(len(NUMBERS))
    own = [Lending(base=NUMBERS, feature=f, values=NUMBERS[f].array, row=row, value=row) for f in NUMBERS]
    found = from_trees(base.model, own)
    assert found is not None
    for answer in found[1:]:
        assert np.array_equal(answer.output, found[0].output)


def test_a_forests_sure_answers_are_ties():
    # ten times a tenth is not one in floating point, and a sum of changes is not a sum
    model = RandomForestClassifier(10, random_state=0).fit(NUMBERS, TWO)
    subject = make_subject(model, NUMBERS, NUMBERS[:60])
    found = from_trees(subject.model, lendings_of(NUMBERS, queries=600))
    assert found is not None
    answers = np.concatenate([answer.output for answer in found])
    for sure in (0.0, 1.0):
        assert (answers == sure).sum() > 20
        assert not ((np.abs(answers - sure) < 1e-9) & (answers != sure)).any()


def explained(model: object, y: np.ndarray, **options: object) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the dependence table and the permutation importance of a model."""
    subject = make_subject(model, X, X[:200], **options)
    subject = dataclasses.replace(subject, y=y)
    config, seeds = Config.parse(options), Seeds(0)
    attributions, _ = explain(subject, config=config, seeds=seeds)
    table = dependence.build(subject, attributions, config=config, seeds=seeds).artifacts[0].table
    found = permutation_importance.permutation_importance(
        subject, config=config, seeds=seeds, order=np.arange(X.shape[1])
    )
    return table, np.stack([found.value, found.low, found.high])


@pytest.mark.parametrize("metrics", [None, ("accuracy",)], ids=["auc", "accuracy"])
def test_curves_and_shuffles_are_those_of_predictions(monkeypatch, metrics):
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=8, enable_categorical=True, n_jobs=1).fit(X, TWO)
    options = {"output": "margin"} | ({} if metrics is None else {"metrics": metrics})
    asked: list[int] = []
    trees = predicting.from_trees

    def counted(*args, **kwargs):
        found = trees(*args, **kwargs)
        asked.append(found is not None)
        return found

    monkeypatch.setattr(predicting, "from_trees", counted)
    one = explained(model, TWO.to_numpy(), **options)
    assert asked == [True, True]
    monkeypatch.setattr(predicting, "from_trees", lambda *args, **kwargs: None)
    other = explained(model, TWO.to_numpy(), **options)
    pd.testing.assert_frame_equal(one[0], other[0], atol=1e-5, rtol=0)
    np.testing.assert_allclose(one[1], other[1], atol=1e-12)


def test_trees_of_an_objective_without_probabilities_are_ranked_by_their_scores(monkeypatch):
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(objective="binary:hinge", n_estimators=8, enable_categorical=True, n_jobs=1)
    model.fit(X, TWO)
    one = explained(model, TWO.to_numpy(), output="margin")
    monkeypatch.setattr(predicting, "from_trees", lambda *args, **kwargs: None)
    other = explained(model, TWO.to_numpy(), output="margin")
    assert np.abs(one[1]).max() > 0
    # single precision ties other rows than the trees' own sums
    np.testing.assert_allclose(one[1], other[1], atol=1e-4)


def test_what_trees_have_answered_is_not_left_out_for_lack_of_time(monkeypatch):
    """Kernels that are compiled for the first time may take longer than the budget."""
    model = RandomForestRegressor(5, random_state=0).fit(NUMBERS, Y)
    subject = make_subject(model, NUMBERS, NUMBERS[:200])
    subject = dataclasses.replace(subject, y=np.asarray(Y))
    monkeypatch.setattr(masking, "affordable", lambda *given, rows, **also: rows)
    config, seeds = Config(budget=1e-9), Seeds(0)
    attributions, _ = explain(subject, config=config, seeds=seeds)
    curves = dependence.build(subject, attributions, config=config, seeds=seeds)
    assert set(curves.artifacts[0].table["feature"]) == set(NUMBERS)
    found = permutation_importance.permutation_importance(
        subject, config=config, seeds=seeds, order=np.arange(NUMBERS.shape[1])
    )
    assert np.isfinite(found.value).all()
    assert not [c.code for c in (*curves.caveats, *found.caveats) if "budget" in c.code]


def test_a_model_that_answers_otherwise_than_its_trees_is_asked_itself():
    model = RandomForestRegressor(5, random_state=0).fit(NUMBERS, Y)
    subject = make_subject(model, NUMBERS, NUMBERS[:60])
    lendings = lendings_of(NUMBERS)
    assert predicting.from_trees(subject.model, lendings) is not None
    own = subject.model.respond

    def shifted(rows):
        answer = own(rows)
        return dataclasses.replace(answer, output=answer.output + 0.01 * (rows[["b"]].to_numpy() > 1))

    other = dataclasses.replace(subject.model, respond=shifted, outputs=None, scored=None)
    assert predicting.from_trees(other, lendings) is None


def test_a_constant_column_has_nothing_to_be_lent():
    rows = NUMBERS.assign(same=1.0)
    model = RandomForestRegressor(5, random_state=0).fit(rows, Y)
    subject = dataclasses.replace(make_subject(model, rows, rows[:60]), y=Y.to_numpy())
    found = permutation_importance.permutation_importance(
        subject, config=Config(), seeds=Seeds(0), order=np.arange(rows.shape[1])
    )
    assert found.value[-1] == 0.0
    assert found.value[:-1].max() > 0


def test_a_value_that_the_trees_cannot_read_is_left_to_the_model():
    model = RandomForestRegressor(5, random_state=0).fit(NUMBERS, Y)
    subject = make_subject(model, NUMBERS, NUMBERS[:60])
    every = np.arange(3)
    odd = np.array(["x", None, 1j], dtype=object)
    lent = Lending(base=NUMBERS, feature="a", values=pd.array(odd, dtype=object), row=every, value=every)
    assert from_trees(subject.model, [lent]) is None


def test_small_work_and_models_without_trees_are_left_to_predictions(monkeypatch):
    model = RandomForestRegressor(5, random_state=0).fit(NUMBERS, Y)
    subject = make_subject(model, NUMBERS, NUMBERS[:60])
    assert from_trees(dataclasses.replace(subject.model, family="blackbox"), lendings_of(NUMBERS)) is None
    assert from_trees(subject.model, []) is None
    monkeypatch.setattr(tree_compiled, "SMALL_WORK", 10**12)
    assert from_trees(subject.model, lendings_of(NUMBERS)) is None
