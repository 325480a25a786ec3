"""A real local Spark: the same numbers as on one machine, whatever the partitions and whoever dies on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from spark_kit import local_session
from xgboost import XGBClassifier

import explain_step
from explain_step import cli, frames, spark, spark_frames, spark_sampling, spark_work, streaming
from explain_step.compute import compute
from explain_step.config import Config
from explain_step.errors import InvalidInput, MissingDependency
from explain_step.explainers.prepared import prepare
from explain_step.row_sums import rowsum_digest

pytest.importorskip("pyspark", reason="the extra 'spark' is not installed")
from pyspark.sql import functions as F

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a session, a JVM and Python workers start slowly on a busy machine
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Spark leaves sockets to the collector
]
N, SAMPLE = 4_000, 500
CONFIG = Config(output="margin", segments=("region",), top_features=2)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with local_session() as found:
        yield found


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(N, 3)), columns=["age", "debt", "rate"])
    X["rate"] = X["rate"].where(rng.random(N) < 0.9)  # missing values
    X["count"] = rng.integers(0, 6, N)
    score = X["age"] + X["debt"] * X["count"] + rng.normal(size=N)
    return X.assign(region=rng.choice(["north", "south"], N), deny=np.where(score > 0, 1, 0))


FEATURES = ["age", "debt", "rate", "count"]


@pytest.fixture(scope="module")
def model(rows: pd.DataFrame) -> XGBClassifier:
    return XGBClassifier(n_estimators=15, max_depth=3, n_jobs=1).fit(rows[FEATURES], rows["deny"])


@pytest.fixture(scope="module")
def place(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    rows.to_parquet(path)
    return path


@pytest.fixture(scope="module")
def explained(session: Any, rows: pd.DataFrame, model: XGBClassifier, place: Path) -> Any:
    """Return the explanation of all rows, and how many rows the driver fetched on the way, by their columns."""
    frame, fetched = session.read.parquet(str(place)), []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("collect", "toArrow", "toPandas"):
            _recorded(patch, type(frame), name, fetched)
        found = spark.compute(
            model, frame, "deny", config=CONFIG, background=rows[FEATURES].iloc[:200], sample_rows=SAMPLE
        )
    return found, fetched


def _recorded(patch: pytest.MonkeyPatch, kind: type, name: str, fetched: list[tuple[int, list[str]]]) -> None:
    original = getattr(kind, name)

    def record(self: Any, *given: Any, **more: Any) -> Any:
        answer = original(self, *given, **more)
        fetched.append((len(answer), self.columns))
        return answer

    patch.setattr(kind, name, record)


def table(explanation: Any, name: str) -> pd.DataFrame:
    return next(a.table for a in explanation.artifacts if a.name == name)


def test_all_rows_are_explained_and_only_the_sample_comes_to_the_driver(explained, rows) -> None:
    found, fetched = explained
    assert found.counted == N
    assert len(found.subject.X) == len(found.attributions.rows) == SAMPLE
    values = [many for many, columns in fetched if columns != ["part", "problem"]]
    assert len(values) == 1
    assert values[0] <= SAMPLE + spark_sampling.HEAVY
    assert found.all_rows == {"rows": N, "digest": rowsum_digest(rows), "algorithm": "rowsum-v1"}


def test_importance_and_segments_are_those_of_one_machine(explained, rows, model) -> None:
    found, _ = explained
    here = compute(model, rows, "deny", config=CONFIG, background=rows[FEATURES].iloc[:200])
    for name, keys in (("importance", ["feature"]), ("segments", ["segment", "level", "output", "feature"])):
        ours, theirs = (table(e, name).set_index(keys).sort_index() for e in (found, here))
        common = ours.index.intersection(theirs.index)
        assert len(common) >= len(FEATURES)
        np.testing.assert_allclose(
            ours.loc[common, "mean_abs_shap"].astype(float),
            theirs.loc[common, "mean_abs_shap"].astype(float),
            rtol=1e-9,
        )


def test_executors_have_the_quantity_that_was_asked_for(session, rows, place) -> None:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(SimpleImputer(), LinearRegression()).fit(rows[FEATURES], rows["deny"])
    config = Config(feature_perturbation="correlation_dependent", task="regression")
    given = {"config": config, "background": rows[FEATURES].iloc[:300]}
    here = compute(model, rows[FEATURES], rows["deny"], **given)
    frame = session.read.parquet(str(place)).select(*FEATURES, "deny")
    there = spark.compute(model, frame, "deny", sample_rows=SAMPLE, **given)
    assert there.counted == N
    ours, theirs = (table(e, "importance").set_index("feature")["mean_abs_shap"] for e in (there, here))
    np.testing.assert_allclose(ours, theirs.reindex(ours.index), rtol=1e-9)
    usual = compute(model, rows[FEATURES], rows["deny"], **(given | {"config": Config(task="regression")}))
    assert (table(usual, "importance").set_index("feature")["mean_abs_shap"] - theirs).abs().max() > 1e-4


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_totals_and_sample_do_not_depend_on_partitions(session, explained, rows, model, place, parts) -> None:
    found, _ = explained
    shuffled = session.createDataFrame(rows.sample(frac=1, random_state=parts)) if parts == 3 else None
    frame = (shuffled or session.read.parquet(str(place))).repartition(parts)
    taken = spark_sampling.sample(frame, rows=SAMPLE, seed=CONFIG.seed)
    assert taken.scan.parts == parts
    pd.testing.assert_frame_equal(taken.frame[FEATURES], found.subject.frame[FEATURES], check_dtype=False)
    work = spark.work_of(found, taken, target="deny")
    totals = spark.total(frame, work, scan=taken.scan)
    whole = _here(found, work, rows)
    assert totals.rows == whole.rows == N
    for ours, theirs in zip(_numbers(totals), _numbers(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def _here(found: Any, work: Any, rows: pd.DataFrame) -> Any:
    """Return the totals of one machine, in blocks of another size."""
    explain = prepare(found.subject, rows=N)
    parts = []
    for start in range(0, N, 1_500):
        block = spark_work.block(work, rows.iloc[start : start + 1_500].reset_index(drop=True))
        parts.append(streaming.of_block(work.plan, block, explain(block.X)))
    return reduce(streaming.merge, parts)


def _numbers(totals: Any) -> list[Any]:
    groups = (*totals.views, totals.signed, *totals.segments, *totals.curves, *totals.places)
    return [getattr(m, part) for m in groups for part in ("n", "weight", "mean", "spread")]


def test_summaries_of_many_partitions_are_merged_by_executors(
    session, explained, rows, place, monkeypatch
) -> None:
    found, fetched = explained[0], []
    frame = session.read.parquet(str(place)).repartition(7)
    taken = spark_sampling.sample(frame, rows=SAMPLE, seed=CONFIG.seed)
    monkeypatch.setattr(spark, "MERGE_AT", 3)
    _recorded(monkeypatch, type(frame), "collect", fetched)
    work = spark.work_of(found, taken, target="deny")
    totals = spark.total(frame, work, scan=taken.scan)
    assert fetched[0][0] <= 3
    for ours, theirs in zip(_numbers(totals), _numbers(_here(found, work, rows)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(session, tmp_path) -> None:
    killed = tmp_path / "killed"

    def fatal(batches: Iterator[Any]) -> Iterator[Any]:
        from pyspark import TaskContext

        task = TaskContext.get()
        for number, batch in enumerate(batches):
            if number == 7 and task.partitionId() == 1 and task.attemptNumber() == 0:
                with killed.open("a") as file:  # the first block is explained by now
                    file.write(f"{os.getpid()}\n")
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    n = 150_000
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(n, 2)), columns=["a", "b"])
    fitted = LinearRegression().fit(frame, frame["a"] - 2 * frame["b"])
    halves = session.createDataFrame(frame).repartition(2)
    source = halves.mapInArrow(fatal, halves.schema)
    taken = spark_sampling.sample(source, rows=300, seed=0)
    assert taken.scan.rows.digest(["a", "b"]) == rowsum_digest(frame)
    few = compute(fitted, taken.frame, config=Config(top_features=1), background=frame.iloc[:50])
    totals = spark.total(source, spark.work_of(few, taken), scan=taken.scan)
    assert len(killed.read_text().split()) == 3  # one worker in each pass over the rows
    assert totals.rows == n
    centred = (frame - frame.iloc[:50].mean()) * fitted.coef_
    np.testing.assert_allclose(totals.views[0].mean[0], centred.abs().mean().to_numpy(), rtol=1e-9)


def test_rows_that_change_between_passes_are_noticed(session, explained, place) -> None:
    frame = session.read.parquet(str(place))
    taken = spark_sampling.sample(frame, rows=SAMPLE, seed=CONFIG.seed)
    with pytest.raises(
        InvalidInput, match=r"same rows at every pass; 4,000 rows were counted first and 3,999"
    ):
        spark.total(frame.limit(N - 1), spark.work_of(explained[0], taken, target="deny"), scan=taken.scan)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"y": np.zeros(3)},
            "Argument y must be the name of a column where X is a Spark DataFrame.*got ndarray",
        ),
        ({"y": "denny"}, "no column 'denny' in .* Did you mean 'deny'"),
        ({"y": "rate"}, "Argument y must not have missing values, got "),
        ({"sample_weight": [1.0]}, "Argument sample_weight must be the name of a column"),
        ({"y": "deny", "sample_weight": "region"}, "Argument sample_weight must be numbers"),
    ],
)
def test_what_spark_cannot_match_is_refused(session, model, place, given, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        spark.compute(model, session.read.parquet(str(place)), config=CONFIG, **given)


def test_columns_without_plain_values_are_refused(session) -> None:
    frame = session.sql("SELECT 1.0 AS x, array(1, 2) AS parts")
    with pytest.raises(InvalidInput, match=r"numbers, text.*'parts' \(array<int>\)"):
        spark_sampling.sample(frame)
    with pytest.raises(InvalidInput, match="must have at least one row"):
        spark_sampling.sample(session.sql("SELECT 1.0 AS x WHERE false"))


def test_a_black_box_is_explained_on_the_sample_and_says_so(session, rows, place) -> None:
    def score(X: pd.DataFrame) -> Any:
        return X["age"].to_numpy() * 2.0 + X["debt"].to_numpy()

    frame = session.read.parquet(str(place)).select("age", "debt")
    found = spark.compute(score, frame, config=Config(task="regression", top_features=1), sample_rows=60)
    said = {caveat.code: caveat.message for caveat in found.caveats}
    assert found.counted is None
    assert "60 of the 4,000 rows of the Spark DataFrame" in said["rows_sampled"]


def test_categories_of_the_background_are_those_of_the_model(session, rows) -> None:
    X = rows[["age", "region"]].astype({"region": "category"})
    model = XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1, enable_categorical=True).fit(X, rows["deny"])
    frame = session.createDataFrame(rows[["age", "region", "deny"]].iloc[:900]).repartition(2)
    config = Config(output="margin", top_features=1)
    found = spark.compute(model, frame, "deny", config=config, background=X.iloc[:100], sample_rows=200)
    here = compute(model, X.iloc[:900], rows["deny"].iloc[:900], config=config, background=X.iloc[:100])
    ours, theirs = (table(e, "importance").set_index("feature")["mean_abs_shap"] for e in (found, here))
    np.testing.assert_allclose(ours.sort_index(), theirs.sort_index(), rtol=1e-9)
    fewer = X.iloc[:100].assign(region=pd.Categorical(["north"] * 100, categories=["north"]))
    with pytest.raises(InvalidInput, match="column 'region' has 'south', which the background does not have"):
        spark.compute(model, frame, "deny", config=config, background=fewer, sample_rows=200)


def test_names_that_spark_does_not_find_and_types_that_pandas_has_otherwise(session, rows) -> None:
    X = rows[["age", "debt", "count", "deny"]].assign(age=rows["age"].round(2), old=rows["debt"] > 0)
    names = ["debt.ratio `x`", "Age", "age", "explain_step_key", "old"]
    model = XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1)
    background = X.set_axis(names, axis=1)[["age", "Age", "old", "debt.ratio `x`"]]
    model.fit(background, rows["deny"])
    frame = session.createDataFrame(X).withColumn("age", F.col("age").cast("decimal(9,2)"))
    frame = frame.withColumn("old", F.when(F.col("count") != 3, F.col("old"))).repartition(3).toDF(*names)
    X = X.assign(old=X["old"].astype("boolean").mask(X["count"] == 3)).set_axis(names, axis=1)
    config = Config(output="margin", segments=("old",), top_features=1)
    options = {"config": config, "background": background.iloc[:100]}
    found = spark.compute(model, frame, "explain_step_key", sample_rows=200, **options)
    here = compute(model, X, "explain_step_key", **options)
    assert found.all_rows["digest"] == rowsum_digest(X)
    for name, keys in (("importance", ["feature"]), ("segments", ["segment", "level", "output", "feature"])):
        ours, theirs = (table(e, name).set_index(keys)["mean_abs_shap"].sort_index() for e in (found, here))
        common = ours.index.intersection(theirs.index)
        assert len(common) >= 3
        np.testing.assert_allclose(ours[common].astype(float), theirs[common].astype(float), rtol=1e-9)


def test_a_spark_background_is_a_sample(session, rows, monkeypatch) -> None:
    monkeypatch.setattr(frames, "SPARK_ROWS", 300)
    frame = session.createDataFrame(rows[["age", "debt"]])
    taken = frames.to_frame(frame)
    assert (len(taken), taken.attrs[frames.ROWS_CUT]) == (300, 300)
    small = frames.to_frame(frame.limit(50))
    assert (len(small), frames.ROWS_CUT in small.attrs) == (50, False)


def test_a_snapshot_in_mlflow_of_a_spark_frame(session, rows, model, place, store, monkeypatch) -> None:
    import mlflow
    from tracking_kit import current_store

    monkeypatch.setattr(
        spark.compute, "__kwdefaults__", spark.compute.__kwdefaults__ | {"sample_rows": SAMPLE}
    )
    with current_store(store.uri, store.experiment_id), mlflow.start_run():
        logged = explain_step.log_explanations(
            model,
            session.read.parquet(str(place)),
            "deny",
            config=CONFIG,
            background=rows[FEATURES].iloc[:200],
        )
    shot = logged.snapshot
    assert logged.status in ("complete", "degraded"), logged.reason
    assert shot.manifest["data"]["all_rows"]["digest"] == rowsum_digest(rows)
    assert shot.manifest["quantity"]["rows"] == N
    assert all(finding.verdict == "pass" for finding in explain_step.verify(shot.path))
    assert "4,000" in (shot.path / "report.html").read_text(encoding="utf-8")
    again = explain_step.replay(
        shot.path,
        model=model,
        data=session.read.parquet(str(place)).repartition(2),
        background=rows[FEATURES].iloc[:200],
        figures=False,
    )
    assert again.verdict in ("identical", "within_tolerance"), again.reason


def test_the_command_line_explains_a_parquet_directory(session, rows, place, tmp_path, capsys) -> None:
    import mlflow

    fitted = LinearRegression().fit(rows[["age", "debt"]], rows["count"])
    mlflow.sklearn.save_model(fitted, tmp_path / "model", serialization_format="cloudpickle")
    rows[["age", "debt", "count"]].to_parquet(tmp_path / "data", partition_cols=None)
    arguments = [
        "run",
        str(tmp_path / "model"),
        str(tmp_path / "data"),
        "--target",
        "count",
        "--allow-pickle",
    ]
    more = ["--engine", "spark", "--output-dir", str(tmp_path / "out"), "--json"]
    code = cli.invoke([*arguments, *more])
    said = capsys.readouterr()
    assert code == 0, said
    assert '"status"' in said.out
    assert cli.invoke([*arguments[:2], str(tmp_path / "nothing"), "--engine", "spark", "--allow-pickle"]) == 2
    assert "Parquet that Spark can read" in capsys.readouterr().err


def test_missing_java_is_said(monkeypatch) -> None:
    from explain_step import spark_session

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingDependency, match=r"Spark needs Java 17 or newer.*JAVA_HOME"):
        spark_session.check_java()
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(MissingDependency, match="no bin/java"):
        spark_session.check_java()


def test_what_is_no_spark_frame_is_none(rows) -> None:
    assert not spark_frames.is_spark(rows)
    assert not spark_frames.is_spark(None)
