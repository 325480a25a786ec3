"""Three classes, missing values and a category column: each class's probability is explained, never the class label."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split

import explain_step


def main() -> int:
    """Explain a gradient-boosted classifier of wines with 10% of the cells missing."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    rng = np.random.default_rng(0)
    X = X.iloc[:, :6].mask(rng.random((len(X), 6)) < 0.1)
    X["cellar"] = pd.Categorical(rng.choice(["north", "south", "east"], len(X)))
    labels = y.map({0: "barolo", 1: "grignolino", 2: "barbera"}).rename("wine")
    X_train, X_test, y_train, y_test = train_test_split(
        X, labels, random_state=0, stratify=labels, test_size=0.4
    )
    model = HistGradientBoostingClassifier(max_iter=30, categorical_features="from_dtype", random_state=0)
    model.fit(X_train, y_train)
    snapshot = explain_step.explain(
        model, X_test, y_test, background=X_train, segments=["cellar"], top_features=4
    )
    leaders = (
        snapshot.tables["importance"].sort_values("mean_abs_shap", ascending=False).groupby("output").head(2)
    )
    print(
        leaders[["output", "feature", "mean_abs_shap", "ci_low", "ci_high"]].to_string(
            index=False, float_format="{:.3g}".format
        )
    )
    print(f"\n{snapshot.status}: {snapshot.reason}\npage: {snapshot.path / 'report.html'}")
    return 0 if snapshot.status in ("complete", "degraded") else 1


if __name__ == "__main__":
    raise SystemExit(main())
