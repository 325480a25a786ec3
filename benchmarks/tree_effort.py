"""What values of deep trees take, beside what is reckoned: ``python benchmarks/tree_effort.py [--rows 3000] [--trees 3]``.

Forests grown to the end, extra trees and boosted trees on Adult census (15 columns as numbers, 60 with products and
differences, and its categories as one-hot columns), on generated columns and on indicators of which one holds. Processor
seconds are those of the machine on which the constants were measured; what counts is that the ratios are alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recorded import say
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from tree_engine import adult, widened
from xgboost import XGBClassifier

from explain_step.explainers import (
    ensembles,
    ensembles_sklearn,
    ensembles_xgboost,
    tree,
    tree_compiled,
    tree_effort,
    tree_pilot,
)
from explain_step.explainers.ensembles import Ensemble


def one_hot() -> pd.DataFrame:
    """Return Adult with a column for each category."""
    spec = find_spec("shapiq")
    if spec is None or spec.origin is None:
        raise SystemExit("shapiq is not installed")
    data = pd.read_csv(Path(spec.origin).parent / "datasets" / "data" / "adult_census.csv")
    return pd.get_dummies(data.iloc[:, :-1]).astype(float)


def generated(columns: int, *, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return even columns and a target with an interaction."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30_000, columns))
    y = X @ (rng.normal(size=columns) / (1 + np.arange(columns))) + np.sin(2 * X[:, 0]) * X[:, 1]
    return pd.DataFrame(X), y + rng.normal(scale=0.5, size=len(X))


def indicators(columns: int, *, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return columns of which one is 1, and a target by level."""
    rng = np.random.default_rng(seed)
    level = rng.integers(columns, size=30_000)
    return pd.DataFrame(np.eye(columns)[level]), rng.normal(size=columns)[level] + rng.normal(
        scale=0.3, size=len(level)
    )


def forests(trees: int) -> Iterator[tuple[str, Any, pd.DataFrame]]:
    """Yield names, fitted models, and rows of which the first 10,000 were not seen."""
    (X, y), few = adult(), {"n_estimators": trees, "random_state": 0, "n_jobs": 2}
    wide, hot, old = widened(X, 60), one_hot(), np.digitize(X.iloc[:, 0], [25, 35, 45, 60])
    forest = RandomForestClassifier
    yield from (
        (name, model.fit(data[10_000:30_000], target[10_000:30_000]), data)
        for name, model, data, target in (
            ("Adult, forest", forest(**few), X, y),
            ("the same, min_samples_leaf 5", forest(min_samples_leaf=5, **few), X, y),
            ("extra trees", ExtraTreesClassifier(**few), X, y),
            ("forest, five classes", forest(**few), X.iloc[:, 1:14], old),
            ("forest, 60 columns", forest(**few), wide, y),
            ("forest, one-hot columns", forest(**few), hot, y),
            *(
                (f"boosted, depth {depth}", XGBClassifier(n_estimators=10 * trees, max_depth=depth), wide, y)
                for depth in (8, 10, 12)
            ),
        )
    )
    for name, (data, target) in {
        "generated, 15 columns": generated(15, seed=0),
        "generated, 60 columns": generated(60, seed=1),
        "60 indicators": indicators(60, seed=2),
        "100 indicators": indicators(100, seed=2),
    }.items():
        yield name, RandomForestRegressor(**few).fit(data[10_000:15_000], target[10_000:15_000]), data


def parsed(model: Any) -> Ensemble:
    """Return the ensemble; of two classes the second one's."""
    if isinstance(model, XGBClassifier):
        return ensembles_xgboost.parse(model)
    found = ensembles_sklearn.parse(model, names=ensembles.root_of(model)[1])
    return ensembles._keep(found, 1) if len(found.offset) == 2 else found


def compare(name: str, ensemble: Ensemble, X: pd.DataFrame, *, rows: int, background: int) -> None:
    """Print one line: seconds reckoned and taken."""
    ours = ensemble.encode(X[:rows])
    theirs = ensemble.encode(X[5_000 : 5_000 + background])
    sources = np.asarray(ensemble.columns)
    began = time.process_time()
    work = tree_effort.look(
        ensemble, sources=sources, rows=rows, background=background,
        sample=lambda: (ours[:, tree_pilot.chosen(rows)], theirs[:, tree_pilot.chosen(background)]),
    )  # fmt: skip
    looked = time.process_time() - began
    reckoned = 0.0 if work is None else work.seconds(rows, background)
    began = time.process_time()
    tree.values(ensemble, ours, theirs, sources=sources, n_features=X.shape[1])
    took = time.process_time() - began
    ratio = f"{took / reckoned:5.2f} times" if reckoned else "no deep leaf"
    say(
        f"{name:30} {rows:6,} rows, {background:6,} of the background: reckoned {reckoned:6.2f} s in {looked:.2f} s, "
        f"took {took:6.2f} s, {ratio}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000)
    parser.add_argument("--trees", type=int, default=3)
    given = parser.parse_args()
    tree_compiled.SMALL_WORK = -1  # the compiled engine, whatever the size
    tree_compiled.warm()
    for name, model, X in forests(given.trees):
        ensemble = parsed(model)
        few = -(-given.rows // 3)
        for rows, background in ((few, few), (given.rows, few), (few, given.rows), (given.rows, given.rows)):
            compare(name, ensemble, X, rows=rows, background=background)


if __name__ == "__main__":
    main()
