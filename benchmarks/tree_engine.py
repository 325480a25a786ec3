"""Exact tree attributions beside shap and the boosters' own: ``python benchmarks/tree_engine.py [--rows 20000]``.

Adult census (48,842 real rows, shipped in the wheel of shapiq), category codes as numbers, and one derived column. Each
engine gets as many rows as it explains in reasonable time; what is compared is processor time of all threads per row,
measured in the same run, which other work on the machine hardly changes. The kernels are compiled or loaded before the
clock starts; ``explain-step warm`` does the same for users. Errors are in units of the output's standard deviation,
against shap's double-precision C extension; of XGBoost models shap passes on the single-precision ``pred_contribs``.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shap
from lightgbm import LGBMClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from xgboost import DMatrix, XGBClassifier

from explain_step.explainers import (
    ensembles,
    ensembles_lightgbm,
    ensembles_sklearn,
    ensembles_xgboost,
    tree_compiled,
)
from explain_step.explainers.ensembles import Ensemble


def adult() -> tuple[pd.DataFrame, np.ndarray]:
    """Return the columns as numbers, and the label."""
    spec = find_spec("shapiq")
    if spec is None or spec.origin is None:
        raise SystemExit("shapiq is not installed: its wheel has the data (pip install shapiq)")
    data = pd.read_csv(Path(spec.origin).parent / "datasets" / "data" / "adult_census.csv")
    columns = {
        name: data[name].astype(float)
        if pd.api.types.is_numeric_dtype(data[name])
        else pd.factorize(data[name])[0]
        for name in data.columns[:-1]
    }
    X = pd.DataFrame(columns, dtype=float)
    X["derived"] = X.iloc[:, 0] * X.iloc[:, -1]
    return X, pd.factorize(data.iloc[:, -1])[0]


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def per_row(work: Callable[[], Any], rows: int) -> tuple[float, Any]:
    """Return microseconds of processor time per row, and the result."""
    start = time.process_time()
    result = work()
    return (time.process_time() - start) / rows * 1e6, result


def ours(ensemble: Ensemble, X: pd.DataFrame, background: pd.DataFrame | None = None) -> np.ndarray:
    """Return the values of all rows, from raw rows on: encoding, tables and look-ups."""
    used, places = np.unique(ensemble.columns, return_inverse=True)
    against = None if background is None else ensemble.encode(background)
    parts = tree_compiled.shapley_values(
        ensemble, ensemble.encode(X), against, places=places, n_used=len(used)
    )
    values = np.zeros((len(X), X.shape[1]))
    values[:, used] = np.concatenate(list(parts))[:, 0]
    return values


def compare(
    name: str, ensemble: Ensemble, X: pd.DataFrame, rivals: dict[str, tuple[int, Callable[[pd.DataFrame], Any]]],
    *, background: pd.DataFrame | None = None, scale: float,
) -> None:  # fmt: skip
    """Print one line per rival: its time per row over ours, and the largest difference."""
    ours(ensemble, X.head(50), background)
    mine, values = per_row(lambda: ours(ensemble, X, background), len(X))
    say(f"{name}: {mine:,.1f} us per row, {len(X):,} rows")
    for rival, (rows, work) in rivals.items():
        work(X.head(5))
        theirs, found = per_row(lambda work=work, rows=rows: work(X.head(rows)), rows)
        error = ""
        if found is not None and found.shape == values[:rows].shape:
            error = f", largest difference {np.abs(found - values[:rows]).max() / scale:.1e} sd"
        say(f"  {rival:42s} {theirs:10,.1f} us per row  {theirs / mine:8.1f} x{error}")


def positive(values: Any) -> np.ndarray:
    """Return the positive class of what shap gives a classifier."""
    array = np.asarray(values)
    return array[..., 1] if array.ndim == 3 else array


def main(rows: int, trees: int) -> None:
    """Print the table."""
    warnings.filterwarnings("ignore", category=UserWarning)
    X, y = adult()
    held, background = X.sample(rows, replace=rows > len(X), random_state=0), X.head(30_000)
    few = max(100, rows // 20)
    xgb = XGBClassifier(n_estimators=trees, max_depth=6, learning_rate=0.1, n_jobs=2).fit(X, y)
    booster = xgb.get_booster()
    margin = booster.predict(DMatrix(held), output_margin=True)
    path = shap.TreeExplainer(xgb, feature_perturbation="tree_path_dependent")
    ensemble = ensembles_xgboost.parse(xgb)
    compare(
        f"XGBoost {trees} x 6, path-dependent", ensemble, held,
        {
            "shap.TreeExplainer": (few, lambda part: path.shap_values(part, check_additivity=False)),
            "pred_contribs": (few, lambda part: booster.predict(DMatrix(part), pred_contribs=True)[:, :-1]),
            "(its predict)": (rows, lambda part: booster.predict(DMatrix(part)) * 0 + 1),
        },
        scale=float(margin.std()),
    )  # fmt: skip
    hundred = shap.TreeExplainer(xgb, X.head(100), feature_perturbation="interventional")
    compare(
        f"XGBoost {trees} x 6, interventional, 30,000 background rows", ensemble, held,
        {"shap.TreeExplainer, 100 background rows": (
            few // 10, lambda part: hundred.shap_values(part, check_additivity=False)[:, :0])},
        background=background, scale=float(margin.std()),
    )  # fmt: skip
    lgb = LGBMClassifier(n_estimators=trees, num_leaves=31, verbose=-1, n_jobs=2).fit(X, y)
    explainer = shap.TreeExplainer(lgb)
    raw = lgb.predict(held, raw_score=True)
    compare(
        f"LightGBM {trees} x 31", ensembles_lightgbm.parse(lgb, space="margin"), held,
        {
            "shap.TreeExplainer": (few, lambda part: positive(explainer.shap_values(part, check_additivity=False))),
            "pred_contrib": (few, lambda part: lgb.predict(part, pred_contrib=True)[:, :-1]),
        },
        scale=float(raw.std()),
    )  # fmt: skip
    hgb = HistGradientBoostingClassifier(
        max_iter=trees * 3 // 5, max_leaf_nodes=31, early_stopping=False
    ).fit(X, y)
    of_hgb = shap.TreeExplainer(hgb)
    compare(
        f"HistGradientBoosting {trees * 3 // 5} x 31",
        ensembles_sklearn.parse(hgb, names=ensembles.root_of(hgb)[1]), held,
        {"shap.TreeExplainer": (few, lambda part: positive(of_hgb.shap_values(part, check_additivity=False)))},
        scale=float(hgb.decision_function(held).std()),
    )  # fmt: skip
    forest = RandomForestClassifier(trees // 5, min_samples_leaf=5, random_state=0, n_jobs=2).fit(X, y)
    of_forest = shap.TreeExplainer(forest)
    both = ensembles_sklearn.parse(forest, names=ensembles.root_of(forest)[1])
    compare(
        f"random forest {trees // 5}, min_samples_leaf 5", ensembles._keep(both, 1), held.head(max(200, rows // 10)),
        {"shap.TreeExplainer": (20, lambda part: positive(of_forest.shap_values(part, check_additivity=False)))},
        scale=float(forest.predict_proba(held)[:, 1].std()),
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--trees", type=int, default=500)
    asked = parser.parse_args()
    main(asked.rows, asked.trees)
