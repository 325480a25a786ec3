"""Memory and time of the step on a million rows: ``python benchmarks/memory.py [--rows 1000000]``.

Adult census rows (48,842 real ones, shipped in the wheel of shapiq), repeated with noise in the numbers, 15 columns;
XGBoost with 500 trees of depth 6, margin, against 30,000 background rows. Each run is a process of its own, which first
explains 2,000 rows, so that libraries and kernels are loaded; then the step (``explain_step.explain``: tables, figures, page
and snapshot) runs on all rows. Printed are the size of the input, the peak of the resident memory above what the process
held with the input in it, the same of both processes together (up to 100,000 rows there is a second one; a page that they
share counts once: Linux's ``Pss``), and processor seconds of all threads and of both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import recorded  # beside this script
from tree_engine import adult

BACKGROUND = 30_000


def grown(X: pd.DataFrame, y: np.ndarray, rows: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return so many rows: drawn with repetition, with noise in columns of many values."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(X), size=rows)
    columns = {}
    for name in X.columns:
        values = X[name].to_numpy()[drawn]
        if X[name].nunique() > 50:
            values += rng.normal(scale=0.01 * X[name].std(), size=rows)
        columns[name] = values
    return pd.DataFrame(columns), y[drawn]


def resident(key: str = "VmRSS") -> int:
    """Return the process's memory in bytes: now (VmRSS), or its peak (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise SystemExit("this platform does not tell a process's memory")


def together() -> int:
    """Return the memory of this process and of those that it has started, each page divided by those who share it."""
    processes = [os.getpid()]
    for process in processes:  # which grows
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has ended
                processes += map(int, task.read_text(encoding="ascii").split())
    found = 0
    for process in processes:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
            found += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return found


class Peak:
    """The largest memory while it runs, by one measure that is taken every so many seconds."""

    def __init__(self, measure: Callable[[], int], *, every: float) -> None:
        self.measure, self.every, self.most, self.done = measure, every, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self.done.wait(self.every):
            self.most = max(self.most, self.measure())

    def __enter__(self) -> Peak:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.most = max(self.most, self.measure())


def run(rows: int, trees: int) -> dict[str, Any]:
    """Explain so many rows in this process, and return what it took."""
    from xgboost import XGBClassifier

    import explain_step

    warnings.simplefilter("ignore")
    X, y = adult()
    model = XGBClassifier(n_estimators=trees, max_depth=6, n_jobs=2).fit(X[:BACKGROUND], y[:BACKGROUND])
    background = X[:BACKGROUND]
    options: dict[str, Any] = {"output": "margin", "background": background, "segments": [X.columns[7]]}
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        some, labels = grown(X, y, 21_000)
        explain_step.explain(model, some[:2_000], labels[:2_000], directory=Path(folder, "first"), **options)
        del some, labels
        many, labels = grown(X, y, rows)
        before, before_together = resident(), together()
        start = sum(os.times()[:4])  # of the processes that it starts as well
        with Peak(resident, every=0.05) as peak, Peak(together, every=0.2) as both:
            shot = explain_step.explain(model, many, labels, directory=Path(folder, "all"), **options)
        seconds = sum(os.times()[:4]) - start
        log = [json.loads(line) for line in (shot.path / "provenance" / "log.jsonl").read_text().splitlines()]
    quantity = shot.manifest["quantity"]
    return {
        "rows": rows,
        "input_mb": (many.memory_usage(index=False).sum() + labels.nbytes) / 2**20,
        "peak_above_mb": (peak.most - before) / 2**20,
        "together_above_mb": (both.most - before_together) / 2**20,
        "cpu_s": seconds,
        "status": shot.status,
        "reason": shot.reason,
        "explained": [quantity["rows"], quantity.get("sample_rows")],
        "stages": {event["step"]: event["cpu_s"] for event in log},
        "held_mb": {event["step"]: round((event["rss_bytes"] - before) / 2**20) for event in log},
    }


def child(rows: int, trees: int) -> dict[str, Any]:
    """Return what `run` gives in a process of its own."""
    command = [sys.executable, __file__, "--child", "--rows", str(rows), "--trees", str(trees)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=10_000, help="rows of the step that it is compared with")
    parser.add_argument("--trees", type=int, default=500)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--save", help="file for the numbers")
    arguments = parser.parse_args()
    if arguments.child:
        sys.stdout.write(json.dumps(run(arguments.rows, arguments.trees)) + "\n")
        return
    found = [child(rows, arguments.trees) for rows in (arguments.few, arguments.rows)]
    sys.stdout.write(
        "| rows | input | peak above it | of both processes | processor time | status |\n|---|---|---|---|---|---|\n"
    )
    for one in found:
        sys.stdout.write(
            f"| {one['rows']:,} | {one['input_mb']:.0f} MiB | {one['peak_above_mb']:.0f} MiB "
            f"| {one['together_above_mb']:.0f} MiB | {one['cpu_s']:.1f} s | {one['status']} |\n"
        )
    recorded.save(arguments.save, {"lines": found})
    sys.stdout.write(f"\nratio of processor times: {found[1]['cpu_s'] / found[0]['cpu_s']:.1f}\n")
    for one in found:
        sys.stdout.write(
            f"{one['rows']:,} rows, {one['reason']}; seconds by stage: {one['stages']}; held after it: {one['held_mb']}\n"
        )


if __name__ == "__main__":
    main()
