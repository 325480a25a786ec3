"""Every example runs as a user runs it: in its own process, with a store of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.oldest]

ROOT = Path(__file__).parents[2]
WITH_STORE = ("01_train_and_explain.py", "02_gate_promotion.py", "03_explain_existing_version.py")
ALONE = (
    "04_regression_without_mlflow.py",
    "05_multiclass_with_missing_values.py",
    "06_any_callable_in_private.py",
)


def run(name: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=280, check=False, env={**os.environ, "TMPDIR": str(cwd)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", WITH_STORE)
def test_example_with_store(name: str, tmp_path: Path) -> None:
    out = run(name, "--store", str(tmp_path / "store"), cwd=tmp_path)
    assert "complete" in out
    assert (tmp_path / "store" / "mlflow.db").is_file()
    # MLflow has the snapshot, so no local copy of it stays behind
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith("explain_step_")]


@pytest.mark.parametrize("name", ALONE)
def test_example_alone(name: str, tmp_path: Path) -> None:
    out = run(name, cwd=tmp_path)
    assert "report.html" in out
    pages = list(tmp_path.rglob("report.html"))
    assert len(pages) == 1
    assert pages[0].stat().st_size < 3_000_000


def test_every_example_is_run() -> None:
    on_disk = {p.name for p in (ROOT / "examples").glob("0*.py")}
    assert on_disk == {*WITH_STORE, *ALONE}
