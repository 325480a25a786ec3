"""One rival of `tree_engine.py` in an environment of its own: ``python tree_rivals.py TASK FOLDER ROWS``.

The folder has the XGBoost model, ``model.json``, and the rows, ``rows.npy``. Prints microseconds of processor time of
all threads per row, and leaves the values in ``values.npy``. Needs NumPy, pandas, XGBoost and, for its tasks, woodelf.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost


def main(task: str, folder: Path, rows: int) -> None:
    """Explain the first rows, after a few that load what is loaded late."""
    X = pd.DataFrame(np.load(folder / "rows.npy")).add_prefix("f")
    booster = xgboost.Booster(model_file=folder / "model.json")
    booster.set_param({"nthread": 2})
    version = xgboost.__version__

    def contributions(part: pd.DataFrame) -> Any:
        return booster.predict(xgboost.DMatrix(part), pred_contribs=True)[:, :-1]

    def interactions(part: pd.DataFrame) -> Any:
        return booster.predict(xgboost.DMatrix(part), pred_interactions=True)[:, :-1, :-1]

    work = {"contributions": contributions, "interactions": interactions}
    if task.startswith("woodelf"):
        import woodelf

        version = woodelf.__version__
        explainer = woodelf.WoodelfExplainer(booster)
        work = {"woodelf": explainer.shap_values, "woodelf-interactions": explainer.shap_interaction_values}
    work[task](X.head(5))
    start = time.process_time()
    values = work[task](X.head(rows))
    spent = time.process_time() - start
    np.save(folder / "values.npy", np.asarray(values, dtype=np.float64))
    sys.stdout.write(f"{spent / rows * 1e6} {version}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
