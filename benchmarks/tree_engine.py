"""Exact tree attributions beside shap and the boosters' own: ``python benchmarks/tree_engine.py [--rows 20000]``.

Adult census (48,842 real rows, shipped in the wheel of shapiq), category codes as numbers, and one derived column; with
``--features 50`` as many columns, the further ones products and differences of real columns. Each engine gets as many
rows as it explains in reasonable time; what is compared is processor time of all threads per row, measured in the same
run, which other work on the machine hardly changes. The kernels are compiled or loaded before the clock starts;
``explain-step warm`` does the same for users. Errors are in units of the output's standard deviation, against shap's
double-precision C extension; of XGBoost models shap passes on the single-precision ``pred_contribs``.

Two rivals need environments of their own and are left out without them: ``--woodelf-python`` is a Python that has
``woodelf_explainer``, xgboost and pandas, ``--xgboost-python`` one (3.12 or later) that has xgboost >= 3.4 and pandas::

    uv venv --python 3.12 /tmp/newer && uv pip install --python /tmp/newer/bin/python "xgboost>=3.4" pandas
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import recorded  # beside this script
import shap
from lightgbm import LGBMClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from xgboost import Booster, DMatrix, XGBClassifier

from explain_step.errors import NotApplicable
from explain_step.explainers import (
    ensembles,
    ensembles_lightgbm,
    ensembles_sklearn,
    ensembles_xgboost,
    tree_compiled,
    tree_interactions,
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


def widened(X: pd.DataFrame, features: int) -> pd.DataFrame:
    """Return the columns and further ones, products and differences of two of them, up to so many."""
    columns = {name: X[name].to_numpy() for name in X}
    for k, (a, b) in enumerate(combinations(X.columns[:12], 2)):
        if len(columns) >= features:
            break
        columns[f"{a} and {b}"] = (
            X[a].to_numpy() * X[b].to_numpy() if k % 2 else X[a].to_numpy() - X[b].to_numpy()
        )
    return pd.DataFrame(columns)


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
    values, start = np.zeros((len(X), X.shape[1])), 0
    for part in parts:
        values[start : start + len(part), used] = part[:, 0]
        start += len(part)
    return values


def pairs(ensemble: Ensemble, X: pd.DataFrame) -> np.ndarray:
    """Return the path-dependent interactions of all rows, as shap's matrix."""
    return tree_interactions.interaction_values(
        ensemble, ensemble.encode(X), None, sources=ensemble.columns, n_features=X.shape[1]
    )[..., 0]


Rivals = dict[str, tuple[int, Callable[[pd.DataFrame], Any]]]
Lines = list[dict[str, Any]]


def compare(
    name: str, mine: Callable[[pd.DataFrame], np.ndarray], X: pd.DataFrame, rivals: Rivals, *, scale: float
) -> Lines:
    """Print and return one line per rival: its time per row over ours, and the largest difference; or why there is none."""
    try:
        mine(X.head(50))
    except NotApplicable as error:
        recorded.say(f"{name}: {error}")
        return []
    lines: Lines = []
    own, values = per_row(lambda: mine(X), len(X))
    recorded.say(f"{name}: {own:,.1f} us per row, {len(X):,} rows")
    for rival, (rows, work) in rivals.items():
        version = None
        if isinstance(work, Elsewhere):
            theirs, found, version = work.measure(X.head(rows))
        else:
            work(X.head(5))
            theirs, found = per_row(lambda work=work, rows=rows: work(X.head(rows)), rows)
        off = None
        if found is not None and found.shape == values[:rows].shape:
            off = float(np.abs(found - values[:rows]).max() / scale)
        error = "" if off is None else f", largest difference {off:.1e} sd"
        recorded.say(f"  {rival:42s} {theirs:10,.1f} us per row  {theirs / own:8.1f} x{error}")
        lines.append(
            {
                "what": name,
                "rows": len(X),
                "rival": rival,
                "version": version,
                "ours": own,
                "theirs": theirs,
                "off": off,
            }
        )
    return lines


@dataclass(frozen=True)
class Elsewhere:
    """A rival that another Python runs: a task of `tree_rivals.py`."""

    python: str
    task: str
    booster: Booster

    def __call__(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the values of some rows."""
        return self.measure(rows)[1]

    def measure(self, rows: pd.DataFrame) -> tuple[float, np.ndarray, str]:
        """Return microseconds of processor time per row, the values, and the rival's version."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            plain = self.booster.copy()
            plain.feature_names = [f"f{k}" for k in range(rows.shape[1])]
            plain.save_model(folder / "model.json")
            np.save(folder / "rows.npy", rows.to_numpy())
            command = [
                self.python,
                str(Path(__file__).with_name("tree_rivals.py")),
                self.task,
                name,
                str(len(rows)),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=name)
            spent, version = done.stdout.split()[-2:]
            return float(spent), np.load(folder / "values.npy"), version


def positive(values: Any) -> np.ndarray:
    """Return the positive class of what shap gives a classifier."""
    array = np.asarray(values)
    return array[..., 1] if array.ndim == 3 else array


class Case(NamedTuple):
    """What every part compares on."""

    asked: argparse.Namespace
    X: pd.DataFrame
    y: np.ndarray
    held: pd.DataFrame
    background: pd.DataFrame
    few: int


def main(asked: argparse.Namespace) -> None:
    """Print the table."""
    warnings.filterwarnings("ignore", category=UserWarning)
    tree_compiled.SMALL_WORK = -1  # the compiled engine, whatever the size
    X, y = adult()
    X = widened(X, asked.features)
    held, background = X.sample(asked.rows, replace=asked.rows > len(X), random_state=0), X.head(30_000)
    few = max(100, asked.rows // 20)
    recorded.say(f"{X.shape[1]} columns, {asked.trees} trees")
    parts = {"xgboost": of_xgboost, "lightgbm": of_lightgbm, "histogram": of_histogram, "forest": of_forest,
             "interactions": of_interactions}  # fmt: skip
    case = Case(asked, X, y, held, background, few)
    lines = [line for name in asked.only or parts for line in parts[name](case)]
    recorded.save(asked.save, {"columns": X.shape[1], "trees": asked.trees, "lines": lines})


def of_xgboost(case: Case) -> Lines:
    """Path-dependent values, and interventional ones."""
    xgb = XGBClassifier(n_estimators=case.asked.trees, max_depth=6, learning_rate=0.1, n_jobs=2).fit(
        case.X, case.y
    )
    booster = xgb.get_booster()
    scale = float(booster.predict(DMatrix(case.held), output_margin=True).std())
    path = shap.TreeExplainer(xgb, feature_perturbation="tree_path_dependent")
    ensemble = ensembles_xgboost.parse(xgb)
    rivals: Rivals = {
        "shap.TreeExplainer": (case.few, lambda part: path.shap_values(part, check_additivity=False)),
        "pred_contribs": (case.few, lambda part: booster.predict(DMatrix(part), pred_contribs=True)[:, :-1]),
        "(its predict)": (case.asked.rows, lambda part: booster.predict(DMatrix(part)) * 0 + 1),
    }
    if case.asked.xgboost_python:
        rivals["pred_contribs, newer XGBoost"] = (
            case.few,
            Elsewhere(case.asked.xgboost_python, "contributions", booster),
        )
    if case.asked.woodelf_python:
        rivals["woodelf_explainer"] = (
            case.asked.rows,
            Elsewhere(case.asked.woodelf_python, "woodelf", booster),
        )
    lines = compare(
        f"XGBoost {case.asked.trees} x 6, path-dependent",
        lambda part: ours(ensemble, part),
        case.held,
        rivals,
        scale=scale,
    )
    hundred = shap.TreeExplainer(xgb, case.X.head(100), feature_perturbation="interventional")
    return lines + compare(
        f"XGBoost {case.asked.trees} x 6, interventional, 30,000 background rows",
        lambda part: ours(ensemble, part, case.background), case.held,
        {"shap.TreeExplainer, 100 background rows": (
            case.few // 10, lambda part: hundred.shap_values(part, check_additivity=False)[:, :0])},
        scale=scale,
    )  # fmt: skip


def of_lightgbm(case: Case) -> Lines:
    """Path-dependent values."""
    X, held = (part.set_axis(range(part.shape[1]), axis=1) for part in (case.X, case.held))
    lgb = LGBMClassifier(n_estimators=case.asked.trees, num_leaves=31, verbose=-1, n_jobs=2).fit(X, case.y)
    explainer, ensemble = shap.TreeExplainer(lgb), ensembles_lightgbm.parse(lgb, space="margin")
    return compare(
        f"LightGBM {case.asked.trees} x 31", lambda part: ours(ensemble, part), held,
        {
            "shap.TreeExplainer": (case.few, lambda part: positive(explainer.shap_values(part, check_additivity=False))),
            "pred_contrib": (case.few, lambda part: lgb.predict(part, pred_contrib=True)[:, :-1]),
        },
        scale=float(lgb.predict(held, raw_score=True).std()),
    )  # fmt: skip


def of_histogram(case: Case) -> Lines:
    """Path-dependent values."""
    trees = max(1, case.asked.trees * 3 // 5)
    hgb = HistGradientBoostingClassifier(max_iter=trees, max_leaf_nodes=31, early_stopping=False).fit(
        case.X, case.y
    )
    explainer, ensemble = (
        shap.TreeExplainer(hgb),
        ensembles_sklearn.parse(hgb, names=ensembles.root_of(hgb)[1]),
    )
    return compare(
        f"HistGradientBoosting {trees} x 31", lambda part: ours(ensemble, part), case.held,
        {"shap.TreeExplainer": (case.few, lambda part: positive(explainer.shap_values(part, check_additivity=False)))},
        scale=float(hgb.decision_function(case.held).std()),
    )  # fmt: skip


def of_forest(case: Case) -> Lines:
    """Path-dependent values of deep trees."""
    forest = RandomForestClassifier(
        max(1, case.asked.trees // 5), min_samples_leaf=5, random_state=0, n_jobs=2
    ).fit(case.X, case.y)
    explainer = shap.TreeExplainer(forest)
    ensemble = ensembles._keep(ensembles_sklearn.parse(forest, names=ensembles.root_of(forest)[1]), 1)
    return compare(
        f"random forest {max(1, case.asked.trees // 5)}, min_samples_leaf 5", lambda part: ours(ensemble, part),
        case.held.head(max(200, case.asked.rows // 10)),
        {"shap.TreeExplainer": (20, lambda part: positive(explainer.shap_values(part, check_additivity=False)))},
        scale=float(forest.predict_proba(case.held)[:, 1].std()),
    )  # fmt: skip


def of_interactions(case: Case) -> Lines:
    """Path-dependent interactions: the whole matrix of every row."""
    trees = max(1, case.asked.trees // 5)
    xgb = XGBClassifier(n_estimators=trees, max_depth=6, learning_rate=0.1, n_jobs=2).fit(case.X, case.y)
    booster, ensemble = xgb.get_booster(), ensembles_xgboost.parse(xgb)
    explainer, least = (
        shap.TreeExplainer(xgb, feature_perturbation="tree_path_dependent"),
        max(20, case.few // 10),
    )
    rivals: Rivals = {
        "shap.TreeExplainer": (least, explainer.shap_interaction_values),
        "pred_interactions": (
            least, lambda part: booster.predict(DMatrix(part), pred_interactions=True)[:, :-1, :-1]),
    }  # fmt: skip
    if case.asked.xgboost_python:
        newer = Elsewhere(case.asked.xgboost_python, "interactions", booster)
        rivals["pred_interactions, newer XGBoost"] = (case.few, newer)
    if case.asked.woodelf_python:
        rivals["woodelf_explainer"] = (
            case.few,
            Elsewhere(case.asked.woodelf_python, "woodelf-interactions", booster),
        )
    return compare(
        f"interactions, XGBoost {trees} x 6, path-dependent", lambda part: pairs(ensemble, part),
        case.held.head(max(200, case.asked.rows // 5)), rivals,
        scale=float(booster.predict(DMatrix(case.held), output_margin=True).std()),
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--trees", type=int, default=500)
    parser.add_argument("--features", type=int, default=15)
    parser.add_argument("--save", help="file for the numbers")
    parser.add_argument("--woodelf-python")
    parser.add_argument("--xgboost-python")
    parser.add_argument(
        "--only", nargs="*", choices=("xgboost", "lightgbm", "histogram", "forest", "interactions")
    )
    main(parser.parse_args())
