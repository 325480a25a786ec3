"""The benchmarks run: small, in processes of their own, and print what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = {
    "tree_engine.py": ("--rows", "200", "--trees", "4"),
    "tree_effort.py": ("--rows", "90", "--trees", "1"),
    "gate_latency.py": ("--rounds", "2", "--calls", "10"),
    "audit_runs.py": ("--runs", "40"),
    "spark_scale.py": ("--rows", "2000", "--trees", "4"),
    "peers/run.py": ("--rows", "80", "--trees", "4", "--cached"),
}
"""Arguments with which each takes seconds; nothing is concluded from such a run."""
LONG = ("black_box.py", "evaluator_vs_default.py", "memory.py")
"""A minute and more whatever the number of rows: only that they start is looked at."""
PARTS = {"tree_rivals.py", "peers/peer.py", "recorded.py", "performance_page.py"}
"""What the others start or import, and what makes a page of their results."""
SAVED = {"tree_engine.py", "peers/run.py"}
SHOWN = {"audit_runs.py": '"cpu_seconds"', "gate_latency.py": "added by the gate"}

pytestmark = pytest.mark.slow


def test_every_benchmark_is_run() -> None:
    found = {p.relative_to(ROOT / "benchmarks").as_posix() for p in (ROOT / "benchmarks").rglob("*.py")}
    assert found == {*SMALL, *LONG, *PARTS}


@pytest.mark.parametrize("script", list(SMALL))
def test_it_runs_and_prints(script: str, tmp_path: Path) -> None:
    more = ("--save", str(tmp_path / "found.json")) if script in SAVED else ()
    assert SHOWN.get(script, "rows") in printed(script, *SMALL[script], *more, folder=tmp_path)
    if more:
        saved = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
        assert saved["found"]["lines"]
        assert saved["machine"]["cores"] >= 1
        assert str(tmp_path) not in saved["command"]


def test_the_page_is_what_the_results_make(tmp_path: Path) -> None:
    assert "performance.md" in printed("performance_page.py", "--check", folder=tmp_path)


@pytest.mark.parametrize("script", LONG)
def test_a_long_one_starts(script: str, tmp_path: Path) -> None:
    assert "usage:" in printed(script, "--help", folder=tmp_path)


def printed(script: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / script), *arguments],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
