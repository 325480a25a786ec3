"""Autologging of the user's script does not see the explanation's own predictions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.oldest]

SCRIPT = """
import mlflow, sklearn.metrics
from sklearn.linear_model import LogisticRegression
from explain_step.tracking import quiet_autologging

mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]
with mlflow.start_run() as run:
    model = LogisticRegression().fit(X, y)
    logged = lambda: set(mlflow.get_run(run.info.run_id).data.metrics)
    before = logged()
    with quiet_autologging():
        sklearn.metrics.accuracy_score(y, model.predict(X))
        LogisticRegression().fit(X, y)
    assert logged() == before, logged() - before
    assert len(mlflow.search_runs()) == 1
    sklearn.metrics.accuracy_score(y, model.predict(X))
    assert logged() > before  # what would have happened
print("quiet")
"""


def test_nothing_is_autologged_inside(tmp_path: Path) -> None:
    """In a process of its own: autologging patches scikit-learn for good."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.strip().endswith("quiet"), done.stderr[-2000:]
