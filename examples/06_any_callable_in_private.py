"""Any ``predict`` callable can be explained; ``privacy="strict"`` publishes no raw row, no rare level or extreme."""

from __future__ import annotations

import numpy as np
import pandas as pd

import explain_step


def score(frame: pd.DataFrame) -> np.ndarray:
    """Stand for a model behind a service: a score with an interaction and a protected column that it ignores."""
    return np.asarray(0.8 * frame["income"] - 0.5 * frame["debt"] * (frame["region"] == "north"), dtype=float)


def main() -> int:
    """Explain the callable and show how well the explanation holds."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "income": rng.normal(3.0, 1.0, 400),
            "debt": rng.gamma(2.0, 1.0, 400),
            "region": rng.choice(["north", "south", "east"], 400),
            "gender": rng.choice(["f", "m"], 400),
        }
    )
    y = score(X) + rng.normal(0, 0.3, 400)
    snapshot = explain_step.explain(
        score, X, y, task="regression", segments=["gender", "region"], privacy="strict", redact=["debt"]
    )
    print(
        snapshot.tables["scores"][["score", "variant", "value", "ci_low", "ci_high"]].to_string(
            index=False, float_format="{:.3g}".format
        )
    )
    print(f"\n{snapshot.status}: {snapshot.reason}\npage: {snapshot.path / 'report.html'}")
    return 0 if snapshot.status in ("complete", "degraded") else 1


if __name__ == "__main__":
    raise SystemExit(main())
