"""The metrics are scikit-learn's, only quicker: resampling calls them thousands of times."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from explain_step.errors import InvalidInput
from explain_step.metrics import METRICS, choose_metrics
from explain_step.types import FittedModel, Response

BY_NAME = {m.name: m for m in METRICS}


def model(task: str, classes: tuple[str, ...] | None = None) -> FittedModel:
    return FittedModel(
        respond=lambda X: Response(output=np.zeros((len(X), 1))), native=None, family="blackbox", task=task,
        output_space="probability" if classes else "prediction", output_names=("out",), feature_names=("a",),
        classes=classes, positive=1 if classes and len(classes) == 2 else None,
    )  # fmt: skip


def classified(k: int, *, n: int = 200) -> tuple[np.ndarray, Response, tuple[str, ...], np.ndarray]:
    rng = np.random.default_rng(k)
    classes = tuple("abcd"[:k])
    p = np.round(rng.dirichlet(np.ones(k), n), 2) + 0.005  # rounded: ties
    p /= p.sum(axis=1, keepdims=True)
    y = np.array([rng.choice(classes, p=row) for row in p])
    label = np.array(classes)[p.argmax(axis=1)]
    return y, Response(output=p[:, 1:2], label=label, probability=p), classes, rng.uniform(0.1, 2, n)


@pytest.mark.parametrize("weighted", [False, True])
def test_binary_metrics_equal_sklearn(weighted: bool) -> None:
    y, r, classes, w = classified(2)
    w = w if weighted else None
    p = r.probability[:, 1]
    wanted = {
        "roc_auc": oracle.roc_auc_score(y == "b", p, sample_weight=w),
        "log_loss": oracle.log_loss(y, r.probability, sample_weight=w),
        "brier": oracle.brier_score_loss(y == "b", p, sample_weight=w),
        "accuracy": oracle.accuracy_score(y, r.label, sample_weight=w),
        "balanced_accuracy": oracle.balanced_accuracy_score(y, r.label, sample_weight=w),
        "f1": oracle.f1_score(y, r.label, pos_label="b", sample_weight=w),
    }
    for name, value in wanted.items():
        assert BY_NAME[name].score(y, r, model("binary", classes), w) == pytest.approx(value, rel=1e-12), name


def test_log_loss_of_impossible_labels_equals_sklearn() -> None:
    y, p = np.array(["a", "b", "b"]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = BY_NAME["log_loss"].score(
        y, Response(output=p[:, 1:], probability=p), model("binary", ("a", "b")), None
    )
    assert found == pytest.approx(oracle.log_loss(y, p), rel=1e-12)


def test_multiclass_metrics_equal_sklearn() -> None:
    y, r, classes, _ = classified(4)
    m = model("multiclass", classes)
    assert BY_NAME["roc_auc"].score(y, r, m, None) == pytest.approx(
        # equal shares that the division made unequal in their last bit are ties (`explain_step.ties`)
        oracle.roc_auc_score(y, np.round(r.probability, 12), multi_class="ovr"),
        rel=1e-12,
    )
    assert BY_NAME["f1"].score(y, r, m, None) == pytest.approx(
        oracle.f1_score(y, r.label, average="macro"), rel=1e-12
    )


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_metrics_equal_sklearn(outputs: int) -> None:
    rng = np.random.default_rng(0)
    y, out = rng.normal(size=(50, outputs)), rng.normal(size=(50, outputs))
    r, m, w = Response(output=out), model("regression"), rng.uniform(0.1, 2, 50)
    assert BY_NAME["mae"].score(y, r, m, w) == pytest.approx(
        oracle.mean_absolute_error(y, out, sample_weight=w)
    )
    assert BY_NAME["rmse"].score(y, r, m, w) == pytest.approx(
        np.sqrt(oracle.mean_squared_error(y, out, sample_weight=w))
    )
    assert BY_NAME["r2"].score(y, r, m, w) == pytest.approx(
        oracle.r2_score(y, out, sample_weight=w, multioutput="variance_weighted"), rel=1e-9
    )


def test_undefined_is_nan_not_a_number() -> None:
    y, r, classes, _ = classified(2)
    one = np.full(len(y), "a")
    assert np.isnan(BY_NAME["roc_auc"].score(one, r, model("binary", classes), None))
    assert np.isnan(
        BY_NAME["r2"].score(np.ones((5, 1)), Response(output=np.zeros((5, 1))), model("regression"), None)
    )


def test_choice_refuses_metrics_of_other_tasks_and_skips_probabilities_where_there_are_none() -> None:
    with pytest.raises(
        InvalidInput, match=r"Option metrics must name metrics of a regression task .*'accuracy'"
    ):
        choose_metrics(("accuracy",), model("regression"), Response(output=np.zeros((1, 1))))
    _, r, classes, _ = classified(2)
    margin = Response(output=r.output, label=r.label)
    assert [m.name for m in choose_metrics((), model("binary", classes), margin)] == ["roc_auc", "accuracy"]
