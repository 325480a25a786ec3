"""Spark with two executor processes, and through Spark Connect: what is explained there travels to them and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pyspark = pytest.importorskip("pyspark", reason="the extra 'spark' is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import json
import numpy as np, pandas as pd
from pyspark.sql import SparkSession
from sklearn.linear_model import LogisticRegression
from explain_step import metrics, row_sums, spark, spark_areas, spark_sampling, spark_work
from explain_step.artifacts import metric_influence
from explain_step.compute import compute
from explain_step.config import Config
from explain_step.streaming import areas, measures

options = {{
    "spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2", "spark.ui.showConsoleProgress": "false",
}}
builder = SparkSession.builder.{where}
for name, value in options.items():
    builder = builder.config(name, value)
session = builder.getOrCreate()
X = pd.DataFrame(np.random.default_rng(0).normal(size=(3000, 3)), columns=list("abc"))
X["grade"] = np.digitize(X["a"] - X["b"] + X["c"] ** 2, [0, 1.5])
model = LogisticRegression().fit(X[list("abc")], X["grade"])
rows = session.createDataFrame(X).repartition(4)
taken = spark_sampling.sample(rows, rows=200)
config = Config(top_features=1, output="margin")
few = compute(model, taken.frame, "grade", config=config, background=X[list("abc")].iloc[:20])
measures.ROWS_OF_A_RANGE = 500
work = spark.work_of(few, taken, target="grade")
with spark_work.sent_to(rows, work) as given:
    totals = spark.total(rows, work, scan=taken.scan, given=given)
    sums = spark_areas.areas_of(rows, work, given).whole()
digest = row_sums.rowsum_digest(X)
subject = compute(model, X, "grade", config=config, background=X[list("abc")].iloc[:20]).subject
metric = next(m for m in metrics.METRICS if m.name == "roc_auc")
value = metric.score(subject.y, subject.response, subject.model, None)
limit = metric_influence.limit(metric, subject, value=value, rng=None)
X = X[list("abc")]
truth = ((X - X.iloc[:20].mean()) * model.coef_[0]).abs().mean().to_numpy()
found = {{
    "how": {how},
    "rows": totals.rows,
    "same_digest": taken.scan.rows.digest(rows.columns) == digest,
    "same_area": abs(areas.value_of(sums) - value) < 1e-12,
    "same_error": abs(areas.limit_of(sums).error - limit.error) < 1e-12,
    "largest_error": float(np.abs(totals.views[0].mean[0] - truth).max()),
}}
session.stop()
print("FOUND " + json.dumps(found))
"""


@pytest.mark.parametrize(
    ("where", "how", "expected"),
    [
        pytest.param(
            "master('local-cluster[2,1,1024]')",
            "session.sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1",
            2,
            id="two-executors",
        ),
        pytest.param(
            "remote('local[2]')", "type(rows).__module__", "pyspark.sql.connect.dataframe", id="connect"
        ),
    ],
)
def test_numbers_are_those_of_one_machine(tmp_path: Path, where: str, how: str, expected: object) -> None:
    if where.startswith("remote"):
        pytest.importorskip("grpc", reason="the client of Spark Connect (pyspark[connect]) is not installed")
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(tmp_path / "work"),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT.format(where=where, how=how)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=560,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stderr[-2000:]
    found = json.loads(lines[0].removeprefix("FOUND "))
    assert found["largest_error"] < 1e-12
    assert {key: found[key] for key in ("how", "rows", "same_digest", "same_area", "same_error")} == {
        "how": expected,
        "rows": 3000,
        "same_digest": True,
        "same_area": True,
        "same_error": True,
    }
