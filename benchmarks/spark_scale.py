"""What Spark adds to a row: processor time of every pass, per row and per partition, and the bytes that travel.

    python benchmarks/spark_scale.py --rows 200000
    python benchmarks/spark_scale.py --sums

Adult census (shapiq's wheel has it), rows repeated with noise, XGBoost in its margin, 1,000 background rows, one task at a
time. Processor time is that of this process, the JVM and its Python workers, user and system.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from explain_step import spark, spark_areas, spark_sampling, spark_work, streaming
from explain_step.compute import compute
from explain_step.config import Config
from explain_step.explainers.prepared import prepare
from explain_step.row_sums import row_sum
from explain_step.types import Attributions, FittedModel, MethodSpec, Response, Subject

TICKS = os.sysconf("SC_CLK_TCK")


def tree_seconds() -> float:
    """Return the processor time so far of this process and all that it started, finished ones included."""
    times, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            times[int(entry.name)] = sum(map(int, fields[11:15])) / TICKS
    ours = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        if not more:
            return sum(times[pid] for pid in ours if pid in times)
        ours |= more


def adult(rows: int) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Return rows of the Adult census as numbers, repeated with noise, and the labels."""
    spec = find_spec("shapiq")
    if spec is None or spec.origin is None:
        sys.exit("shapiq is not installed; its wheel has the data")
    data = pd.read_csv(Path(spec.origin).parent / "datasets" / "data" / "adult_census.csv")
    y = pd.Series(pd.factorize(data.iloc[:, -1])[0])
    numbers = data.iloc[:, :-1].apply(
        lambda c: c if pd.api.types.is_numeric_dtype(c) else pd.Series(pd.factorize(c)[0])
    )
    rng = np.random.default_rng(0)
    places = rng.integers(len(data), size=rows)
    noisy = numbers.iloc[places].to_numpy(dtype=float) + rng.normal(scale=1e-3, size=(rows, numbers.shape[1]))
    return pd.DataFrame(noisy, columns=numbers.columns), y.iloc[places].reset_index(drop=True).rename(
        "income"
    )


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--trees", type=int, default=500)
    parser.add_argument("--sums", action="store_true", help="only what sums and digests cost, without Spark")
    given = parser.parse_args()
    if given.sums:
        for columns, rows in ((15, 65_536), (100, 40_000), (1_000, 4_000), (10_000, 400)):
            sums(columns, rows=rows)
        return
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ["OMP_NUM_THREADS"] = "1"
    from pyspark.sql import SparkSession
    from xgboost import XGBClassifier

    X, y = adult(given.rows)
    model = XGBClassifier(n_estimators=given.trees, max_depth=6, n_jobs=1).fit(
        X.iloc[:30_000], y.iloc[:30_000]
    )
    config = Config(output="margin", top_features=8)
    background = X.iloc[:1_000]
    with tempfile.TemporaryDirectory() as folder:
        session = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "1")
            .getOrCreate()
        )
        session.sparkContext.setLogLevel("OFF")
        sources = []
        for n in (given.rows // 5, given.rows):
            place = str(Path(folder) / f"{n}.parquet")
            X.assign(income=y).iloc[:n].to_parquet(place)
            sources.append((n, session.read.parquet(place).coalesce(1)))
        slope(
            "rows to Python, counted (mapInArrow)",
            lambda s: s.mapInArrow(_counted, "n long").collect(),
            sources,
        )
        scans = slope("scan: count, digest, sketch", lambda s: spark_sampling.scan(s, seed=0), sources)
        taken = slope("scan and sample", lambda s: spark_sampling.sample(s, rows=2_000), sources)[1]
        began = time.process_time()
        few = compute(model, taken.frame, "income", config=config, background=background)
        say(f"{'the step on the sample of 2,000 rows':<46}{time.process_time() - began:8.1f} s CPU")
        work, known = (
            spark.work_of(few, taken, target="income"),
            dict(zip(map(id, _frames(sources)), scans, strict=True)),
        )
        totals = slope("explain all rows", lambda s: spark.total(s, work, scan=known[id(s)]), sources)[1]
        slope("areas: scores, shuffled and sorted", lambda s: _areas(s, work), sources)
        parted = sources[1][1].repartition(16).persist()
        parted.count()
        few_parts, many_parts = parted.coalesce(1), parted
        one = seconds(lambda: spark.total(few_parts, work, scan=scans[1]))
        many = seconds(lambda: spark.total(many_parts, work, scan=scans[1]))
        say(f"{'per further partition':<46}{(many - one) / 15:8.2f} s CPU")
        session.stop()
    explain = prepare(few.subject, rows=given.rows)
    frame = X.assign(income=y)
    _here(work, frame.iloc[:1_000], explain)
    here = seconds(lambda: _here(work, frame, explain))
    say(f"{'the same engine, sums and digest without Spark':<46}{here / given.rows * 1e6:8.1f} us/row")
    say(f"bytes per Totals: {len(streaming.to_bytes(totals)):,}; per scan: {len(scans[1].to_bytes()):,}")


def _frames(sources: list[tuple[int, Any]]) -> list[Any]:
    return [frame for _, frame in sources]


def seconds(work: Callable[[], Any]) -> float:
    """Return the processor time of a call and of everything that runs for it."""
    began = tree_seconds()
    work()
    return tree_seconds() - began


def slope(what: str, work: Callable[[Any], Any], sources: list[tuple[int, Any]]) -> list[Any]:
    """Print what a pass costs per row and per job, from two numbers of rows after a first pass that is not counted."""
    work(sources[0][1])
    answers, times = [], []
    for _, frame in sources:
        began = tree_seconds()
        answers.append(work(frame))
        times.append(tree_seconds() - began)
    (few, _), (many, _) = sources
    per_row = (times[1] - times[0]) / (many - few)
    say(f"{what:<46}{per_row * 1e6:8.1f} us/row and {times[0] - per_row * few:6.2f} s CPU per job")
    return answers


def sums(columns: int, *, rows: int) -> None:
    """Print what adding up and hashing a row costs for a number of columns, and the bytes of the sums."""
    names = tuple(f"f{k}" for k in range(columns))
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(rows, columns)), columns=list(names))
    curves = tuple(
        streaming.Curve(feature=name, grid=tuple(np.linspace(-2, 2, 33)), ends=tuple(range(0, 33, 2)))
        for name in names[:8]
    )
    plan = streaming.Plan(
        features=names,
        outputs=("y",),
        output_space="prediction",
        scale=(1.0,),
        views=(("feature", names, tuple((k,) for k in range(columns))),),
        pairs=tuple((0, k) for k in range(8)),
        segments=(),
        curves=curves,
        weighted=False,
        seed=0,
        sample_rows=rows,
        measured_rows=rows,
    )
    output = X.to_numpy().sum(axis=1, keepdims=True)
    subject = _subject(X, output)
    attributions = Attributions(
        values=X.to_numpy()[:, :, None],
        base_values=np.zeros((rows, 1)),
        feature_names=names,
        output_names=("y",),
        output_space="prediction",
        method=MethodSpec(name="given", version="1"),
        rows=np.arange(rows),
    )
    totals, adding = _timed(lambda: streaming.of_block(plan, subject, attributions), rows=rows)
    _, hashing = _timed(lambda: row_sum(X), rows=rows)
    size = len(streaming.to_bytes(totals))
    say(
        f"{columns:>7,} columns: sums {adding:9.1f} us/row, digest {hashing:9.1f} us/row, {size:>12,} bytes per Totals"
    )


def _timed(work: Callable[[], Any], *, rows: int) -> tuple[Any, float]:
    work()
    began = time.process_time()
    answer = work()
    return answer, (time.process_time() - began) / rows * 1e6


def _subject(X: pd.DataFrame, output: Any) -> Subject:
    model = FittedModel(
        respond=lambda rows: Response(output=output),
        native=None,
        family="blackbox",
        task="regression",
        output_space="prediction",
        output_names=("y",),
        feature_names=tuple(X.columns),
    )
    return Subject(
        model=model,
        X=X,
        frame=X,
        y=None,
        background=X.iloc[:2],
        background_name="",
        weights=None,
        row_ids=np.arange(len(X)),
        target_name="y",
        response=Response(output=output),
    )


def _areas(source: Any, work: spark.Work) -> Any:
    with spark_work.sent_to(source, work) as given:
        return spark_areas.areas_of(source, work, given)


def _counted(batches: Any) -> Any:
    import pyarrow as pa

    for batch in batches:
        yield pa.RecordBatch.from_pydict({"n": [batch.to_pandas().shape[0]]})


def _here(work: spark.Work, frame: pd.DataFrame, explain: Any) -> Any:
    parts = []
    for start in range(0, len(frame), 1 << 16):
        block = frame.iloc[start : start + (1 << 16)].reset_index(drop=True)
        row_sum(block)
        made = spark_work.block(work, block)
        parts.append(streaming.of_block(work.plan, made, explain(made.X)))
    return parts


if __name__ == "__main__":
    main()
