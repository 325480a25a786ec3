"""The performance table: values, intervals, weights, and what is said where a metric is not defined."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_subjects import SEEDS, attributions_of, frame, subject_from, subject_of

import explain_step
from explain_step.artifacts import performance
from explain_step.config import Config
from explain_step.errors import InvalidInput, NotApplicable
from explain_step.types import Response, Section, Subject


def classifier(
    n: int = 200, *, labels: Any = None, weights: Any = None, probabilities: bool = True
) -> Subject:
    rng = np.random.default_rng(0)
    X = frame(rng.normal(size=(n, 2)))

    def respond(rows: pd.DataFrame) -> Response:
        p = 1 / (1 + np.exp(-2 * rows["x0"].to_numpy()))
        return Response(
            output=p[:, None],
            label=np.where(p > 0.5, "yes", "no"),
            probability=np.stack([1 - p, p], axis=1) if probabilities else None,
        )

    truth = np.where(rng.random(n) < respond(X).output[:, 0], "yes", "no") if labels is None else labels
    return subject_from(
        respond,
        X,
        X,
        outputs=("yes",),
        y=truth,
        weights=weights,
        task="binary",
        output_space="probability",
        classes=("no", "yes"),
        positive=1,
    )


def built(subject: Subject, **options: Any) -> Section:
    given = attributions_of(subject, np.zeros((*subject.X.shape, subject.response.output.shape[1])))
    return performance.build(subject, given, config=Config.parse(options), seeds=SEEDS)


def table(section: Section) -> pd.DataFrame:
    return section.artifacts[0].table.set_index("metric")


def test_values_are_the_metrics_and_lie_inside_their_intervals() -> None:
    from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

    subject = classifier()
    section = built(subject)
    found = table(section)
    p = subject.response.output[:, 0]
    assert list(section.artifacts[0].table.columns) == [
        "metric",
        "value",
        "ci_low",
        "ci_high",
        "direction",
        "n",
    ]
    assert found.loc["roc_auc", "value"] == pytest.approx(roc_auc_score(subject.y == "yes", p))
    assert found.loc["log_loss", "value"] == pytest.approx(log_loss(subject.y == "yes", p))
    assert found.loc["accuracy", "value"] == pytest.approx(accuracy_score(subject.y, subject.response.label))
    assert ((found["ci_low"] < found["value"]) & (found["value"] < found["ci_high"])).all()
    assert (found["n"] == 200).all()
    assert found["direction"].to_dict() == {"roc_auc": "higher", "log_loss": "lower", "accuracy": "higher"}
    assert section.caveats == ()
    json.dumps(section.artifacts[0].meta, allow_nan=False)


def test_a_perfect_score_of_few_rows_still_has_a_lower_bound() -> None:
    subject = classifier(10)
    labels = subject.response.label
    found = table(built(classifier(10, labels=labels), metrics=["accuracy"]))
    assert found.loc["accuracy", "value"] == 1.0
    assert found.loc["accuracy", "ci_low"] < 0.8


def test_sample_weights_count() -> None:
    subject = classifier()
    weights = np.where(subject.y == subject.response.label, 1.0, 3.0)
    plain, weighted = table(built(subject)), table(built(classifier(weights=weights)))
    assert weighted.loc["accuracy", "value"] < plain.loc["accuracy", "value"]
    low, high = weighted.loc["accuracy", ["ci_low", "ci_high"]]
    assert low < weighted.loc["accuracy", "value"] < high


def test_one_class_leaves_a_missing_value_and_a_degrading_caveat() -> None:
    section = built(classifier(labels=np.full(200, "yes")))
    found = table(section)
    assert np.isnan(found.loc["roc_auc", "value"])
    assert np.isnan(found.loc["roc_auc", "ci_low"])
    assert np.isfinite(found.loc["accuracy", "value"])
    assert [(c.code, c.degrades) for c in section.caveats] == [("metric_undefined", True)]
    assert "roc_auc" in section.caveats[0].message
    assert "all labels are equal" in section.caveats[0].message


def test_a_metric_that_needs_probabilities_is_left_out_with_a_reason() -> None:
    assert "log_loss" not in table(built(classifier(probabilities=False))).index
    with pytest.raises(NotApplicable, match="no probabilities"):
        built(classifier(probabilities=False), metrics=["log_loss"])


def test_without_labels_the_section_is_missing_with_its_reason() -> None:
    subject = subject_of(lambda A: A[:, 0], np.arange(6.0).reshape(3, 2))
    with pytest.raises(NotApplicable, match="no labels were given"):
        built(subject)


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(InvalidInput, match="rmse"):
        built(classifier(), metrics=["rmse"])


def test_regression_with_several_targets() -> None:
    X = np.random.default_rng(1).normal(size=(50, 2))
    subject = subject_of(lambda A: A, X, outputs=("a", "b"), y=X + np.array([0.0, 2.0]))
    found = table(built(subject))
    assert found.loc["mae", "value"] == pytest.approx(1.0)
    assert found.loc["rmse", "value"] == pytest.approx(np.sqrt(2.0))


def test_all_labelled_rows_are_used_also_those_not_explained() -> None:
    subject = classifier()
    part = subject.take(np.arange(20))
    given = attributions_of(part, np.zeros(part.X.shape))
    section = performance.build(subject, given, config=Config(), seeds=SEEDS)
    assert (section.artifacts[0].table["n"] == 200).all()


def test_same_seed_same_table_whatever_other_metrics_are_asked() -> None:
    subject = classifier()
    alone = table(built(subject, metrics=["brier"]))
    among = table(built(subject, metrics=["roc_auc", "brier"]))
    pd.testing.assert_series_equal(alone.loc["brier"], among.loc["brier"])


def test_one_class_among_the_rows_that_count_is_named() -> None:
    subject = classifier()
    section = built(classifier(weights=np.where(subject.y == "yes", 1.0, 0.0)))
    assert np.isnan(table(section).loc["roc_auc", "value"])
    (said,) = [c.message for c in section.caveats if c.code == "metric_undefined"]
    assert "all labels of rows with a positive weight are equal; give rows of every class" in said


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1", "log_loss", "brier", "roc_auc"])
def test_rows_without_weight_change_no_metric(metric: str) -> None:
    subject = classifier()
    inside = subject.y == "yes" if metric != "roc_auc" else np.arange(200) < 100
    part = subject.take(np.flatnonzero(inside))
    weighted = table(built(classifier(weights=inside.astype(float)), metrics=[metric]))
    assert weighted.loc[metric, "value"] == pytest.approx(
        table(built(part, metrics=[metric])).loc[metric, "value"]
    )


def test_a_margin_is_not_compared_with_the_target() -> None:
    from sklearn.linear_model import PoissonRegressor

    from explain_step.compute import compute

    X = frame(np.random.default_rng(2).normal(size=(80, 2)))
    y = np.exp(0.4 * X["x0"])
    model = PoissonRegressor().fit(X, y)
    found = compute(model, X, y, config=Config(output="margin"), builders=())
    assert found.attributions.method.name == "linear"
    np.testing.assert_allclose(found.attributions.values[:, :, 0], (X - X.mean()) * model.coef_, atol=1e-12)
    error = table(performance.build(found.subject, found.attributions, config=Config(), seeds=SEEDS))
    assert error.loc["mae", "value"] == pytest.approx(np.abs(model.predict(X) - y).mean())


def test_errors_of_several_targets_are_said_to_be_pooled() -> None:
    from sklearn.linear_model import LinearRegression

    from explain_step.compute import compute

    X = frame(np.random.default_rng(2).normal(size=(80, 2)))
    y = pd.DataFrame({"kilometres": X["x0"] ** 2, "metres": 1000 * X["x1"] ** 2})
    found = compute(LinearRegression().fit(X, y), X, y, config=Config(), builders=())
    made = performance.build(found.subject, found.attributions, config=Config(), seeds=SEEDS)
    assert [c.code for c in made.caveats] == ["pooled_targets"]
    assert table(made).loc["rmse", "value"] == pytest.approx(
        np.sqrt(((found.subject.response.output - y.to_numpy()) ** 2).mean())
    )


def test_a_ranking_score_is_compared_with_no_label(tmp_path: Path) -> None:
    """A score has no unit: its root mean squared error against 0 and 1 looked like a result, in every section."""
    import xgboost

    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(120, 3)), columns=["price", "rating", "distance"])
    clicked = (X["rating"] + rng.normal(size=120) > 0).astype(int)
    model = xgboost.XGBRanker(n_estimators=4, max_depth=2).fit(X, clicked, group=[60, 60])
    shot = explain_step.explain(model, X, clicked, background=X.iloc[:20], directory=tmp_path)
    assert shot.status == "degraded"
    assert "score without a unit" in shot.manifest["reason"]
    assert "no labels were given" not in shot.manifest["reason"]
    assert "performance" not in shot.tables
    assert shot.tables["segments"]["metric_value"].isna().all()
    assert shot.tables["importance"]["permutation_importance"].isna().all()
    assert not set(shot.tables["examples"]["kind"]) & {"correct", "incorrect", "largest_error"}
    assert "RMSE" not in (shot.path / "report.html").read_text(encoding="utf-8")


def test_the_interval_of_a_perfect_order_knows_how_few_rows_there_were() -> None:
    def bounds(n: int) -> tuple[float, float]:
        subject = classifier(n)
        score = subject.response.output[:, 0]
        row = table(built(replace(subject, y=np.where(score > np.median(score), "yes", "no")))).loc["roc_auc"]
        assert row["value"] == 1.0
        return float(row["ci_low"]), float(row["ci_high"])

    assert bounds(12) == pytest.approx((0.689, 1.0), abs=1e-3)
    assert bounds(400)[0] > 0.98
