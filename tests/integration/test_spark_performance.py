"""Performance of the rows of a Spark DataFrame: of all rows, and what one machine says of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from spark_kit import local_session
from xgboost import XGBClassifier

from explain_step import spark, spark_areas, spark_work
from explain_step.compute import compute, described
from explain_step.config import Config
from explain_step.errors import InvalidInput
from explain_step.spark_areas import areas_of
from explain_step.streaming import measures

pytest.importorskip("pyspark", reason="the extra 'spark' is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a session, a JVM and Python workers start slowly on a busy machine
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Spark leaves sockets to the collector
]
N, SAMPLE = 42_000, 2_000
FEATURES = ["age", "debt", "rate"]


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with local_session() as found:
        yield found


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(N, 3)).round(3), columns=FEATURES)
    region = rng.choice(["north", "south", "west"], N, p=[0.5, 0.4, 0.1])
    score = X["age"] + X["debt"] * (region != "west") + rng.normal(size=N)
    weight = rng.choice([0.0, 0.5, 2.0], N)
    return X.assign(region=region, weight=weight, deny=np.where(score > 0.5, "yes", "no"), loss=score)


@pytest.fixture(scope="module")
def model(rows: pd.DataFrame) -> XGBClassifier:
    return XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1).fit(rows[FEATURES], rows["deny"] == "yes")


@pytest.fixture(scope="module")
def place(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    rows.to_parquet(path)
    return path


def table(explanation: Any, name: str) -> pd.DataFrame:
    return next(a.table for a in explanation.artifacts if a.name == name)


def same(ours: Any, theirs: Any, name: str, *, keys: list[str], columns: list[str]) -> None:
    one, other = (table(e, name).drop_duplicates(keys).set_index(keys).sort_index() for e in (ours, theirs))
    assert list(one.index) == list(other.index)
    for column in columns:
        np.testing.assert_allclose(one[column], other[column], rtol=1e-8, atol=1e-12, err_msg=column)


def check(ours: Any, theirs: Any) -> None:
    """Compare performance, and metric and rates of segments."""
    bounds = ["ci_low", "ci_high"]
    same(ours, theirs, "performance", keys=["metric"], columns=["value", "n", *bounds])
    of_metric = ["metric_value", "metric_difference", "metric_ci_low", "metric_difference_ci_high"]
    same(ours, theirs, "segments", keys=["segment", "level"], columns=["n", *of_metric, "metric_p_adjusted"])
    if ours.subject.model.task != "regression":
        keys = ["segment", "level", "output", "rate"]
        same(ours, theirs, "segment_rates", keys=keys, columns=["value", "n", "difference", *bounds])


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
def test_performance_is_that_of_all_rows_on_one_machine(
    session, rows, model, place, monkeypatch, weighted, parts
) -> None:
    monkeypatch.setattr(measures, "ROWS_OF_A_RANGE", 5_000)
    config = Config(
        output="margin",
        segments=("region",),
        top_features=1,
        metrics=("roc_auc", "log_loss", "accuracy", "f1"),
    )
    options = {"config": config, "background": rows[FEATURES].iloc[:100]}
    options["sample_weight"] = "weight" if weighted else None
    frame = session.read.parquet(str(place)).drop("loss", *([] if weighted else ["weight"]))
    frame = frame.selectExpr("*", "deny = 'yes' AS denied").drop("deny").repartition(parts)
    found = spark.compute(model, frame, "denied", sample_rows=SAMPLE, **options)
    X = rows.drop(columns=["loss", "deny", *([] if weighted else ["weight"])])
    here = compute(model, X.assign(denied=rows["deny"] == "yes"), "denied", many=10**9, **options)
    check(found, here)
    said = {c.code: c.message for c in found.caveats}
    assert "and so is performance" in said["rows_streamed"]
    assert "all 42,000 rows" in next(a for a in found.artifacts if a.name == "performance").meta["rows_of"]


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
def test_the_areas_of_three_classes_are_those_of_all_rows(
    session, rows, tmp_path, monkeypatch, weighted
) -> None:
    monkeypatch.setattr(measures, "ROWS_OF_A_RANGE", 9_000)
    monkeypatch.setattr(spark_areas, "MOVED_CELLS", 1 << 20)
    X = rows.drop(columns=["loss", "deny", *([] if weighted else ["weight"])])
    X["grade"] = np.array(["high", "low", "middle"])[np.digitize(rows["loss"], [-0.8, 1.0])]
    fitted = LogisticRegression().fit(X[FEATURES], X["grade"])  # text labels, columns in another order
    X[[*FEATURES[::-1], *X.columns.drop(FEATURES)]].to_parquet(tmp_path / "rows.parquet")
    config = Config(output="margin", segments=("region",), top_features=1, metrics=("roc_auc", "f1"))
    options = {"config": config, "background": rows[FEATURES].iloc[:100]}
    options["sample_weight"] = "weight" if weighted else None
    frame = session.read.parquet(str(tmp_path / "rows.parquet")).repartition(3)
    found = spark.compute(fitted, frame, "grade", sample_rows=SAMPLE, **options)
    check(found, compute(fitted, X, "grade", many=10**9, **options))
    assert not any("no sums tell" in c.message for c in found.caveats)


def test_errors_of_a_regression_are_those_of_all_rows(session, rows, place) -> None:
    fitted = LinearRegression().fit(rows[FEATURES], rows["loss"])
    config = Config(segments=("region", "age > 1"), top_features=1)
    options = {"config": config, "background": rows[FEATURES].iloc[:100]}
    frame = session.read.parquet(str(place)).drop("deny", "weight").repartition(3)
    found = spark.compute(fitted, frame, "loss", sample_rows=SAMPLE, **options)
    check(found, compute(fitted, rows.drop(columns=["deny", "weight"]), "loss", many=10**9, **options))


def test_an_explanation_of_the_sample_has_the_performance_of_all_rows(session, rows, model, place) -> None:
    config = Config(segments=("region", "age > 1"), top_features=1)  # a probability of boosted trees
    options = {"config": config, "background": rows[FEATURES].iloc[:50], "sample_weight": "weight"}
    frame = session.read.parquet(str(place)).drop("loss").repartition(3)
    frame = frame.selectExpr("*", "deny = 'yes' AS denied").drop("deny")
    found = spark.compute(model, frame, "denied", sample_rows=300, **options)
    assert found.counted is None
    X = rows.drop(columns=["loss", "deny"]).assign(denied=rows["deny"] == "yes")
    check(found, compute(model, X, "denied", many=10**9, **options))
    said = next(c.message for c in found.caveats if c.code == "rows_sampled")
    assert "300 of the 42,000 rows" in said
    assert said.endswith("Performance, also of segments, is of all rows.")  # nothing was searched
    segments = table(found, "segments")
    assert set(segments["n_explained"].dropna()) < set(range(301))
    meta = next(a for a in found.artifacts if a.name == "segments").meta
    assert meta["rows_of"].startswith("Counts and metric: of all 42,000 rows; importance")


@pytest.mark.parametrize("output", ["margin", "probability"])
def test_groups_found_by_search_are_said_to_be_of_the_sample(session, rows, model, place, output) -> None:
    frame = session.read.parquet(str(place)).drop("loss", "weight")
    frame = frame.selectExpr("*", "deny = 'yes' AS denied").drop("deny")
    config = Config(output=output, top_features=1)
    options = {"config": config, "background": rows[FEATURES].iloc[:50], "sample_rows": 400}
    found = spark.compute(model, frame, "denied", **options)
    meta = next(a.meta for a in found.artifacts if a.name == "segment_search")
    assert meta["rows_of"] == "groups found by search are of a seeded sample of 400 of the 42,000 rows"
    assert meta["report_rows"] == 200
    said = next(c.message for c in found.caveats if c.code in ("rows_streamed", "rows_sampled"))
    assert "search for groups where the model performs worse" in said
    assert described(found)["rows_given"] == N
    assert described(found)["rows"] == (N if output == "margin" else 400)


def test_a_black_box_is_not_asked_about_all_rows(session, rows, place) -> None:
    def score(X: pd.DataFrame) -> Any:
        return X["age"].to_numpy() * 2.0 + X["debt"].to_numpy()

    frame = session.read.parquet(str(place)).select("age", "debt", "loss")
    config = Config(task="regression", top_features=1, budget=1)
    found = spark.compute(score, frame, "loss", config=config, sample_rows=60)
    assert set(table(found, "performance")["n"]) == {60.0}
    assert "Performance" not in next(c.message for c in found.caveats if c.code == "rows_sampled")


def test_weights_count_by_their_ratios_whatever_their_size(session, rows, model, place) -> None:
    config = Config(output="margin", segments=("region",), top_features=1)
    options = {"config": config, "background": rows[FEATURES].iloc[:100], "sample_weight": "weight"}
    frame = (
        session.read.parquet(str(place)).drop("loss").selectExpr("*", "deny = 'yes' AS denied").drop("deny")
    )
    large = frame.withColumn("weight", frame["weight"] * 1e160)
    found = spark.compute(model, large, "denied", sample_rows=300, **options)
    X = rows.drop(columns=["loss", "deny"]).assign(denied=rows["deny"] == "yes")
    check(found, compute(model, X, "denied", many=10**9, **options))
    with pytest.raises(InvalidInput, match=r"sample_weight must be within 1e\+100 times the mean weight"):
        spark_work._weights(pd.Series([1.0, 1e160]), unit=1.0)


def test_rows_whose_scores_came_with_other_weights_are_noticed(
    session, rows, model, place, monkeypatch
) -> None:
    frame = session.read.parquet(str(place)).drop("loss", "weight")
    frame = frame.selectExpr("*", "deny = 'yes' AS denied").drop("deny")
    monkeypatch.setattr(
        spark, "areas_of", lambda source, work, given: areas_of(source.limit(N - 1), work, given)
    )
    options = {"config": Config(output="margin", top_features=1), "background": rows[FEATURES].iloc[:50]}
    with pytest.raises(InvalidInput, match=r"same rows at every pass; their scores"):
        spark.compute(model, frame, "denied", sample_rows=300, **options)


def test_a_worker_killed_while_scores_are_made_or_sorted_changes_no_area(
    session, rows, model, place, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(measures, "ROWS_OF_A_RANGE", 10_000)
    config = Config(output="margin", top_features=1, segments=("region",))
    frame = session.read.parquet(str(place)).drop("loss", "weight")
    frame = frame.selectExpr("*", "deny = 'yes' AS denied").drop("deny").repartition(2)
    options = {"config": config, "background": rows[FEATURES].iloc[:100], "sample_rows": SAMPLE}
    whole = spark.compute(model, frame, "denied", **options)
    killed = tmp_path / "killed"
    original = spark_areas._summed, spark_areas._scored
    monkeypatch.setattr(spark_areas, "_summed", _fatal(original[0], killed, mark="sorted"))
    monkeypatch.setattr(spark_areas, "_scored", _fatal(original[1], killed, mark="scored"))
    again = spark.compute(model, frame, "denied", **options)
    assert sorted(killed.read_text().split()) == ["scored", "sorted"]
    for name in ("performance", "segments"):
        pd.testing.assert_frame_equal(table(again, name), table(whole, name), rtol=1e-12)


def _fatal(work: Any, place: Path, *, mark: str) -> Any:
    """Return a function that kills its worker once, in the first attempt of one task."""

    def fatal(*given: Any) -> Any:
        from pyspark import TaskContext

        task = TaskContext.get()
        if task.partitionId() == 1 and task.attemptNumber() == 0:
            with place.open("a") as file:
                file.write(f"{mark}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*given)

    return fatal
