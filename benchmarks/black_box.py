"""Estimated values beside shap at equal error: ``python benchmarks/black_box.py [--model mlp|svm] [--rows 40]``.

Adult census (48,842 real rows, shipped in the wheel of shapiq), 12 mixed columns through a ColumnTransformer (scaled
numbers, one-hot categories), 100 background rows as shap's maskers take by default. The categories are codes, so that
shap, which asks with plain arrays, has nothing to convert. The truth is exact: all 4,096 coalitions. An error is the root
mean square of the differences to it, over the root mean square of the exact values. What is compared is processor time of
all threads, and the number of predicted rows, which is the same on every machine: of each rival's setting, and of ours at
the same error (interpolated between numbers of pairs in logarithms of both). The floor is the time of predicting as many
rows in one call. So few rows have exact values by all coalitions of each
pair of rows (`explainers.pair_games`), which is what the step takes up to two million predicted rows; and the margin of
support vectors has them without any prediction (`explainers.kernel`). What sampling takes is what more rows would take.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shap
from recorded import save, say  # beside this script
from sklearn.compose import make_column_transformer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from explain_step import data, models
from explain_step.config import Config
from explain_step.explainers import planning
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.kernel import KERNEL
from explain_step.explainers.permutation import PERMUTATION
from explain_step.seeds import Seeds, caller_state_kept
from explain_step.types import Subject

DROPPED = ("fnlwgt", "education")
"""A sampling weight, and a column that says what education-num says."""
OURS = (12, 25, 50, 100, 200, 400, 800, 1600, 3200)
PERMUTATIONS = (1, 4, 20)
"""Of shap's PermutationExplainer; 20 are what its default of 500 evaluations allows for 12 columns."""
COALITIONS = (128, 512, 2 * 12 + 2048)
"""Of shap's KernelExplainer; the last is its default."""
REPEATS = 3


def adult() -> tuple[pd.DataFrame, np.ndarray, list[int]]:
    """Return 12 columns as numbers, the label, and the positions of the categories."""
    spec = find_spec("shapiq")
    if spec is None or spec.origin is None:
        raise SystemExit("shapiq is not installed: its wheel has the data (pip install shapiq)")
    table = pd.read_csv(Path(spec.origin).parent / "datasets" / "data" / "adult_census.csv")
    label = pd.factorize(table.iloc[:, -1])[0]
    table = table.iloc[:, :-1].drop(columns=[c for c in DROPPED if c in table.columns[:-1]])
    table = table.iloc[:, :12]
    texts = [j for j, c in enumerate(table.columns) if not pd.api.types.is_numeric_dtype(table[c])]
    coded = {c: pd.factorize(table[c])[0] if j in texts else table[c] for j, c in enumerate(table.columns)}
    return pd.DataFrame(coded, dtype=float), label, texts


def pipeline(kind: str, X: pd.DataFrame, y: np.ndarray, texts: list[int]) -> Pipeline:
    """Return the fitted pipeline."""
    numbers = [j for j in range(X.shape[1]) if j not in texts]
    prepare = make_column_transformer(
        (StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts)
    )
    if kind == "mlp":
        last: Any = MLPClassifier((64, 32), max_iter=15, random_state=0)
        return make_pipeline(prepare, last).fit(X.iloc[:20_000], y[:20_000])
    return make_pipeline(prepare, SVC(random_state=0)).fit(X.iloc[:800], y[:800])


def subject_of(model: Pipeline, X: pd.DataFrame, *, rows: int, kind: str) -> tuple[Subject, Config]:
    """Return ``rows`` explained rows against 100 background rows."""
    config = Config(output="probability" if kind == "mlp" else "margin", budget=1e6)
    shown = X.iloc[-rows:].reset_index(drop=True)
    background = X.iloc[20_000:40_000].sample(100, random_state=1).reset_index(drop=True)
    wrapped = models.wrap(model, frame=shown, config=config)
    return data.subject(wrapped, shown, config=config, background=background)[0], config


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds of processor time, and the result."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def off(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the relative error."""
    return float(np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2)))


def ours(subject: Subject, config: Config, *, pairs: int, seed: int) -> tuple[np.ndarray, int]:
    """Return the values with ``pairs`` pairs of walks per row, and the number of predicted rows."""
    planning.MAX_PAIRS = pairs
    planning.EVALUATIONS = 10**9
    found = PERMUTATION.explain(subject, config=config, seeds=Seeds(seed))
    assert found.method.params["pairs"] == pairs, found.method.params
    return found.values[:, :, 0], int(found.method.params["predicted_rows"])


def at_error(curve: list[tuple[float, float, float]], wanted: float) -> tuple[float, float, str]:
    """Return our time and predicted rows at an error: interpolated, or those of the nearest measured end."""
    errors, times, rows = (np.log(v) for v in zip(*curve, strict=True))
    order = np.argsort(errors)
    note = ""
    if np.log(wanted) < errors.min():
        note = " (more exact than our longest run, which this is)"
    if np.log(wanted) > errors.max():
        note = " (less exact than our shortest run, which this is)"
    found = (float(np.exp(np.interp(np.log(wanted), errors[order], v[order]))) for v in (times, rows))
    return (*found, note)


def measure(kind: str, rows: int, *, most: int) -> dict[str, Any]:
    """Print and return the table of one model."""
    X, y, texts = adult()
    model = pipeline(kind, X, y, texts)
    subject, config = subject_of(model, X, rows=rows, kind=kind)
    answer = model.predict_proba if kind == "mlp" else model.decision_function

    asked_of = [0]

    def plain(values: np.ndarray) -> np.ndarray:
        asked_of[0] += len(values)
        return np.asarray(answer(values)).reshape(len(values), -1)[:, -1]

    many = X.sample(20_000, replace=True, random_state=2)
    plain(many.head(100))
    floor = clocked(lambda: subject.model.predict(many))[0] / len(many)
    took, found = clocked(lambda: ENUMERATION.explain(subject, config=config, seeds=Seeds(0)))
    truth, predicted = found.values[:, :, 0], found.method.params["predicted_rows"]
    say(
        f"{kind}: {rows} rows, {X.shape[1]} columns, 100 background rows; a predicted row costs {floor * 1e6:.2f} us;"
    )
    say(f"  exact values by enumeration {took:.1f} s, {predicted:,} predicted rows")
    closed = direct(subject, config, truth)
    exact = took if closed is None else closed
    lines: list[dict[str, Any]] = []
    curve = []
    for pairs in (p for p in OURS if p <= most):
        runs = [clocked(lambda s=s, p=pairs: ours(subject, config, pairs=p, seed=s)) for s in range(REPEATS)]
        seconds = float(np.mean([t for t, _ in runs]))
        error = float(np.sqrt(np.mean([off(v, truth) ** 2 for _, (v, _) in runs])))
        asked = runs[0][1][1]
        curve.append((error, seconds, asked))
        say(
            f"  ours, {pairs:5d} pairs   error {error:7.2%}  {seconds:8.2f} s  {asked:10,} predicted rows, "
            f"{seconds / (asked * floor):.2f} times their floor"
        )
    B, shown = subject.background.to_numpy(), subject.X.to_numpy()
    for count in PERMUTATIONS:
        explainer = shap.PermutationExplainer(plain, shap.maskers.Independent(B, max_samples=len(B)), seed=0)
        evaluations = count * (2 * shown.shape[1] + 1)
        explainer(shown[:1], max_evals=evaluations, silent=True)  # compiles
        asked_of[0] = 0
        seconds, found = clocked(lambda e=explainer, n=evaluations: e(shown, max_evals=n, silent=True).values)
        name = f"shap.PermutationExplainer, {count} permutations"
        lines.append(_line(name, off(found, truth), seconds, asked_of[0], curve, exact=exact))
    for count in COALITIONS:
        kernel = shap.KernelExplainer(plain, B)
        kernel.shap_values(shown[:1], nsamples=count, silent=True, l1_reg=False)
        asked_of[0] = 0
        with caller_state_kept():
            np.random.seed(0)  # noqa: NPY002 - what shap draws from
            seconds, found = clocked(
                lambda e=kernel, n=count: e.shap_values(shown, nsamples=n, silent=True, l1_reg=False)
            )
        error = off(np.asarray(found).reshape(truth.shape), truth)
        name = f"shap.KernelExplainer, {count} coalitions"
        lines.append(_line(name, error, seconds, asked_of[0], curve, exact=exact))
    return {
        "model": kind,
        "rows": rows,
        "columns": X.shape[1],
        "floor_us": floor * 1e6,
        "exact": {"seconds": exact, "enumeration": took, "predicted": predicted},
        "curve": [{"error": e, "seconds": t, "predicted": r} for e, t, r in curve],
        "lines": lines,
    }


def direct(subject: Subject, config: Config, truth: np.ndarray) -> float | None:
    """Return the seconds of exact values without enumeration, where the model has them."""
    if KERNEL.why_not(subject) is not None:
        return None
    KERNEL.explain(subject, config=config, seeds=Seeds(0))  # compiles
    seconds, found = clocked(lambda: KERNEL.explain(subject, config=config, seeds=Seeds(0)))
    error = float(np.abs(found.values[:, :, 0] - truth).max() / np.abs(truth).max())
    say(f"  exact values from products  {seconds:8.2f} s  largest error {error:.0e} of the largest value")
    return seconds


def _line(
    name: str,
    error: float,
    seconds: float,
    rows: int,
    curve: list[tuple[float, float, float]],
    *,
    exact: float,
) -> dict[str, Any]:
    mine, asked, note = at_error(curve, error)
    say(
        f"  {name:42s} error {error:7.2%}  {seconds:8.2f} s, {rows:10,} predicted rows; ours at this error "
        f"{mine:7.2f} s, {asked:10,.0f} rows: {seconds / mine:6.1f} x in time, {rows / asked:6.1f} x in rows{note}"
    )
    say(f"  {'':42s} exact values {exact:7.2f} s: {seconds / exact:6.1f} x in time")
    return {
        "rival": name,
        "error": error,
        "seconds": seconds,
        "predicted": rows,
        "ours": mine,
        "our_predicted": asked,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["mlp", "svm"], action="append")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--most", type=int, default=max(OURS), help="largest number of pairs of ours")
    parser.add_argument("--save", help="file for the numbers")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    models_asked = asked.model or ["mlp", "svm"]
    save(asked.save, {chosen: measure(chosen, asked.rows, most=asked.most) for chosen in models_asked})
