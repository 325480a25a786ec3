"""Columns, scales and labels that few data sets have: every section is made, and what is said of them is true."""

from __future__ import annotations

import random
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from explain_step import data, dates
from explain_step.artifacts import BUILDERS
from explain_step.compute import Explanation, compute, judge
from explain_step.config import Config
from explain_step.errors import InvalidInput, PredictionFailed
from explain_step.models import wrap

N = 240
R = np.random.default_rng(11)
X = pd.DataFrame(R.normal(size=(N, 3)), columns=["age", "income", "debt"])
Y = X["age"] - X["income"] + R.normal(size=N)
WANTED = ("importance", "dependence", "segments", "performance")


def explained(model: Any, rows: pd.DataFrame, y: Any = Y, **options: Any) -> Explanation:
    config = Config(**{"task": "regression", "top_features": 2, **options})
    return compute(model, rows, y, config=config, builders=tuple(b for b in BUILDERS if b.name in WANTED))


def said(found: Explanation) -> dict[str, str]:
    return {c.code: c.message for c in found.caveats}


def age(rows: pd.DataFrame) -> np.ndarray:
    return rows["age"].to_numpy(dtype=np.float64)


# --- dates of Arrow


@pytest.mark.parametrize(
    "kind", [pa.date32(), pa.date64(), pa.timestamp("us"), pa.timestamp("us", "Europe/Rome")]
)
@pytest.mark.parametrize("privacy", ["standard", "strict"])
def test_dates_of_arrow_have_curves_and_segments(kind: Any, privacy: str) -> None:
    zone = getattr(kind, "tz", None)
    days = pd.Series(pd.date_range("2024-01-01", periods=N, tz=zone))
    days[3] = pd.NaT
    rows = X.assign(day=days.astype("object" if pa.types.is_date(kind) else days.dtype))
    if pa.types.is_date(kind):
        rows["day"] = pd.array([None if pd.isna(d) else d.date() for d in days], dtype=pd.ArrowDtype(kind))
    rows["day"] = rows["day"].astype(pd.ArrowDtype(kind))
    seen = set()

    def model(given: pd.DataFrame) -> np.ndarray:
        seen.add(str(given["day"].dtype))
        return age(given) + np.asarray(given["day"].isna(), dtype=np.float64)

    found = explained(
        model, rows, segments=("day", "day < '2024-04-01'"), top_features=4, privacy=privacy, min_segment=10
    )
    assert found.missing == {}
    assert seen == {str(rows["day"].dtype)}
    tables = {a.name: a for a in found.artifacts}
    assert tables["dependence"].meta["features"]["day"]["kind"] == "datetime"
    cut = tables["segments"].table.query("segment == \"day < '2024-04-01'\"").set_index("level")["n"]
    assert set(cut["yes"].unique() if hasattr(cut["yes"], "unique") else [cut["yes"]]) == {
        90
    }  # 91 days, one missing


def test_days_since_1970_of_every_kind_of_date() -> None:
    plain = pd.Series(pd.to_datetime(["1970-01-02", None]))
    for column in (
        plain,
        plain.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        plain.astype(pd.ArrowDtype(pa.timestamp("ns"))),
        pd.Series(pd.array([pd.Timestamp("1970-01-02").date(), None], dtype=pd.ArrowDtype(pa.date32()))),
    ):
        np.testing.assert_array_equal(dates.days(column), [1.0, np.nan])


# --- scales


@pytest.mark.parametrize("scale", [1e300, 1e-200])
def test_weak_segments_are_searched_whatever_the_scale(scale: float) -> None:
    wide = X.assign(age=X["age"] * scale)
    y = X["income"] + np.where(X["age"] > 0.5, 8 * R.choice([-1, 1], N), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explained(lambda rows: rows["income"].to_numpy(), wide, y)
        same = explained(lambda rows: rows["income"].to_numpy(), X, y)
    assert judge(found)[0] == "complete"
    (rule, *_), (plain, *_) = (
        next(a.table for a in part.artifacts if a.name == "segment_search")["rule"] for part in (found, same)
    )
    assert float(rule.rpartition(" ")[2]) == pytest.approx(float(plain.rpartition(" ")[2]) * scale)


def test_a_column_that_is_mostly_one_value_can_be_searched() -> None:
    rng = np.random.default_rng(1)
    claims = np.where(rng.random(2000) < 0.049, rng.normal(100, 10, 2000), 0.0)
    rows = pd.DataFrame({"claims": claims, "age": rng.normal(size=2000)})
    y = rows["age"] + np.where(claims > 0, 5.0, 0.0) * rng.choice([-1, 1], 2000)
    found = explained(age, rows, y)
    assert found.missing == {}
    (rule,) = next(a.table for a in found.artifacts if a.name == "segment_search")["rule"]
    assert rule.startswith("claims >= ")


def test_numbers_that_only_floats_cannot_tell_apart_are_not_constant() -> None:
    large = np.array([2**64 - 1 - k for k in range(N)], dtype=np.uint64)
    assert "constant_columns" not in said(explained(age, X.assign(account=large)))
    same = said(explained(age, X.assign(account=np.full(N, 2**64 - 1, dtype=np.uint64))))
    assert "'account'" in same["constant_columns"]


# --- what is said


def test_why_weak_segments_were_not_searched() -> None:
    told = "Weak segments were not searched: "
    assert said(explained(age, X, X["age"]))["no_segment_search"] == f"{told}mae is the same for every row."
    few = said(explained(age, X[:50], Y[:50]))["no_segment_search"]
    assert few == f"{told}that needs at least 160 rows with labels."
    stuck = explained(age, X.assign(age=1.0, income=1.0, debt=1.0))
    assert said(stuck)["no_segment_search"].startswith(f"{told}no column of numbers or text")


def test_few_rows_do_not_make_columns_look_alike() -> None:
    found = explained(lambda rows: rows.sum(axis=1).to_numpy(), X[:5], Y[:5])
    assert "correlated_features" not in said(found)
    twin = explained(age, X[:30].assign(twin=2 * X["age"][:30]), Y[:30])
    assert "'age' and 'twin' (1.00)" in said(twin)["correlated_features"]


# --- labels by name


def both(rows: pd.DataFrame) -> pd.DataFrame:
    p = 1 / (1 + np.exp(-age(rows)))
    return pd.DataFrame({"p_no": 1 - p, "p_yes": p})


def test_labels_may_be_the_declared_names_of_the_classes() -> None:
    labels = np.where(Y > 0, "yes", "no")
    named = Config(class_names=("no", "yes"))
    model = wrap(both, frame=X, config=named)
    made, _ = data.subject(model, X, labels, config=named)
    assert made.y is not None
    assert made.y.tolist() == [f"p_{label}" for label in labels]
    with pytest.raises(
        InvalidInput, match=r"'p_no', 'p_yes'.*or all of them among class_names \['no', 'yes'\]; got 'maybe'"
    ):
        data.subject(model, X, ["maybe", *labels[1:]], config=named)


def test_labels_of_a_booster_may_be_the_declared_names() -> None:
    xgboost = pytest.importorskip("xgboost")
    code = (Y > 0).astype(int)
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X, label=code), 3)
    named = Config(class_names=("no", "yes"))
    made, _ = data.subject(
        wrap(booster, frame=X, config=named), X, np.where(code == 1, "yes", "no"), config=named
    )
    assert made.y is not None
    assert made.y.tolist() == code.tolist()


def test_data_is_no_option() -> None:
    with pytest.raises(
        InvalidInput, match=r"Option 'background' is data .*; give it to explain or log_explanations"
    ):
        Config(background=X)  # type: ignore[call-arg]


# --- containers and silence


def test_a_function_of_one_row_after_the_other_gets_dicts() -> None:
    def score(rows: list[dict[str, float]]) -> list[float]:
        if not isinstance(rows, list):
            raise TypeError(type(rows))
        return [2 * row["age"] for row in rows]

    found = explained(score, X)
    np.testing.assert_allclose(found.subject.response.output[:, 0], 2 * X["age"])


def test_nothing_is_warned_of() -> None:
    model = HistGradientBoostingRegressor(max_iter=3).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute(model, X, Y, config=Config(top_features=2))
    assert judge(found)[0] == "complete"


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_model_draws_does_not_move_the_callers_generators(fails: bool) -> None:
    def noisy(rows: pd.DataFrame) -> np.ndarray:
        noise = 1e-9 * (np.random.random() + random.random())  # noqa: NPY002
        if fails:
            raise ValueError(noise)
        return age(rows) + noise

    before = np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    with np.errstate(all="raise"), suppress(PredictionFailed):
        assert explained(noisy, X).missing == {}
        assert np.geterr()["under"] == "raise"
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == before[1]


def test_a_rare_class_is_told() -> None:
    def rare(rows: pd.DataFrame) -> np.ndarray:
        return 1 / (1 + np.exp(3 - age(rows)))

    y = np.zeros(N, dtype=int)
    y[np.argsort(-age(X))[:6]] = 1
    found = explained(rare, X, y, task="binary", metrics=("roc_auc", "f1"))
    told = said(found)["few_of_a_class"]
    assert told.startswith(
        "A class has under 10 rows with labels: the intervals of f1, permutation importance rest"
    )
    area = (
        next(a.table for a in found.artifacts if a.name == "performance").set_index("metric").loc["roc_auc"]
    )
    assert area["value"] == 1
    assert 0.5 < area["ci_low"] < 0.9
    assert "few_of_a_class" not in said(explained(rare, X, (Y > 0).astype(int), task="binary"))
