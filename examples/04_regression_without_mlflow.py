"""Boosted regression, explained exactly and without MLflow; the tables are plain DataFrames."""

from __future__ import annotations

from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from xgboost import XGBRegressor

import explain_step


def main() -> int:
    """Explain an XGBoost model of disease progression."""
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    model = XGBRegressor(n_estimators=150, max_depth=3, learning_rate=0.05).fit(X_train, y_train)
    snapshot = explain_step.explain(
        model,
        X_test,
        y_test,
        background=X_train,
        segments=["age < 45", ["sex", "bmi >= 26"]],
        feature_groups={"blood serum": ["s1", "s2", "s3", "s4", "s5", "s6"]},
        feature_labels={"bp": "blood pressure", "bmi": "body mass index"},
    )
    print(
        snapshot.tables["importance"][["feature", "mean_abs_shap", "ci_low", "ci_high", "rank"]].to_string(
            index=False, float_format="{:.3g}".format
        )
    )
    print(f"\n{snapshot.status}: {snapshot.reason}\npage: {snapshot.path / 'report.html'}")
    return 0 if snapshot.status in ("complete", "degraded") else 1


if __name__ == "__main__":
    raise SystemExit(main())
