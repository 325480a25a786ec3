"""The base install completes without any optional library, and imports nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("mlflow", "shap", "sklearn", "matplotlib", "pandas", "xgboost", "lightgbm", "catboost", "polars")

WITHOUT_EXTRAS = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("shap", "xgboost", "lightgbm", "catboost", "polars"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())  # as if they were not installed
import numpy as np, pandas as pd
from sklearn.ensemble import RandomForestClassifier
import explain_step
rng = np.random.default_rng(0)
X = pd.DataFrame(rng.normal(size=(120, 3)), columns=list("abc"))
y = np.where(X["a"] + rng.normal(size=120) > 0, "yes", "no")
shot = explain_step.explain(RandomForestClassifier(20, random_state=0).fit(X, y), X, y)
assert shot.status == "complete", shot.manifest
try:
    shot.explanation()
except explain_step.ExplainStepError as error:
    print(error)
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = python(f"import explain_step, sys; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_cli_help_loads_nothing_heavy() -> None:
    loaded = python(f"import explain_step.cli, sys; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.slow
def test_step_completes_without_extras_and_names_the_missing_one() -> None:
    assert "pip install shap (extra 'shap')" in python(WITHOUT_EXTRAS)
