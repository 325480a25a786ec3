"""Mortgage-like tables, scores and figures for the page, in the columns that the builders write."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from explain_step.types import Artifact, Figure, MethodSpec, Score

FEATURES = (
    "lvrat",
    "pirat",
    "chist",
    "phist",
    "afam",
    "hirat",
    "insurance",
    "mhist",
    "selfemp",
    "single",
    "unemp",
    "hschool",
    "condomin",
)
IMPORTANCE = (
    0.0654,
    0.0612,
    0.0331,
    0.0312,
    0.0297,
    0.0283,
    0.0188,
    0.0121,
    0.0074,
    0.0062,
    0.0031,
    0.0011,
    0.0,
)
RANKS = (
    (1, 2),
    (1, 2),
    (3, 6),
    (3, 6),
    (3, 6),
    (3, 6),
    (7, 7),
    (8, 8),
    (9, 10),
    (9, 10),
    (11, 11),
    (12, 12),
    (13, 13),
)
METHOD = MethodSpec(name="masking", version="1", params={"interval": "95% over the explained rows"})
NAN = float("nan")
MEAN = "(mean over outputs)"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
QUANTITY: dict[str, Any] = {
    "output_space": "probability",
    "outputs": ["yes"],
    "target": "deny",
    "phrase": "predicted probability of deny = yes",
    "background": "1,666 background rows given by the caller",
    "background_rows": 1666,
    "method": "tree_interventional",
    "exact": True,
    "rows": 714,
    "rows_given": 714,
}
ROWS_INTERVAL = "95% intervals of the mean over rows: they cover which rows were drawn, not refits."


def _together(mean: np.ndarray) -> np.ndarray:
    """Return each input's share together with all larger ones."""
    order = np.argsort(-mean, kind="stable")
    out = np.empty(len(mean))
    out[order] = mean[order].cumsum() / mean.sum()
    return out


def importance_table(
    features: tuple[str, ...] = FEATURES, *, outputs: tuple[str, ...] = ("yes",), ranks: Any = RANKS
) -> pd.DataFrame:
    parts = []
    for k, output in enumerate(outputs):
        names = np.roll(np.array(features), -k if output != MEAN else 0)
        mean = np.array(IMPORTANCE[: len(features)])
        part = pd.DataFrame(
            {
                "output": output,
                "feature": [str(name) for name in names],
                "mean_abs_shap": mean,
                "ci_low": mean * 0.88,
                "ci_high": mean * 1.12,
                "rank": [float(r[0]) for r in ranks[: len(features)]],
                "rank_low": [float(r[0]) for r in ranks[: len(features)]],
                "rank_high": [float(min(r[1], len(features))) for r in ranks[: len(features)]],
                "mean_shap": mean * np.where(np.arange(len(features)) % 2, -0.13, 0.21),
                "share": mean / mean.sum(),
                "share_ci_low": 0.9 * mean / mean.sum(),
                "share_ci_high": 1.1 * mean / mean.sum(),
                "cumulative_share": _together(mean),
                "cumulative_ci_low": 0.95 * _together(mean),
                "cumulative_ci_high": np.minimum(1.05 * _together(mean), 1.0),
                "permutation_importance": mean * 0.9 - 0.0004,
                "permutation_ci_low": mean * 0.9 - 0.004,
                "permutation_ci_high": mean * 0.9 + 0.0032,
            }
        )
        parts.append(part.sort_values("mean_abs_shap", ascending=False, kind="stable"))
    return pd.concat(parts, ignore_index=True)


def dependence_table(features: tuple[str, ...] = FEATURES, *, output: str = "yes") -> pd.DataFrame:
    parts = []
    for j, feature in enumerate(features[:8]):
        if j in (4, 6):
            x: list[str] = ["no", "yes"]
            value = np.array([-0.012, 0.071]) * (1 + j / 9)
        else:
            grid = np.linspace(0.2, 1.3, 12)
            x = [repr(float(v)) for v in grid]
            value = [np.tanh(3 * (grid - 0.8)) * 0.12, -0.08 + grid**2 * 0.11, np.sin(5 * grid) * 0.05][j % 3]
        for curve in ("shap", "pdp", "ale"):
            parts.append(
                pd.DataFrame(
                    {
                        "output": output,
                        "feature": feature,
                        "curve": curve,
                        "x": x,
                        "value": value,
                        "ci_low": value - 0.011,
                        "ci_high": value + 0.011,
                        "count": float(714 // len(x)),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


GROUPS = (
    ("(all rows)", "(all)", 714, 0.837),
    ("afam", "no", 606, 0.842),
    ("afam", "yes", 108, 0.771),
    ("single", "no", 431, 0.853),
    ("single", "yes", 283, 0.828),
    ("pirat > 0.4", "yes", 12, NAN),
)


def segments_table(features: tuple[str, ...] = FEATURES, *, labelled: bool = True) -> pd.DataFrame:
    rows = [
        _segment_row(group, j, feature, labelled=labelled)
        for group in GROUPS
        for j, feature in enumerate(features[:4])
    ]
    return pd.DataFrame(rows)


def _segment_row(
    group: tuple[str, str, int, float], j: int, feature: str, *, labelled: bool
) -> dict[str, Any]:
    segment, level, n, auc = group
    known = 1.0 if n >= 20 else NAN
    tested = known if segment != "(all rows)" else NAN
    side = -1.0 if level == "no" else 1.0
    measured = known if labelled else NAN
    return {
        "segment": segment,
        "level": level,
        "n": n * known,
        "metric": "roc_auc" if labelled else None,
        "metric_value": auc * measured,
        "metric_ci_low": (auc - 0.04) * measured,
        "metric_ci_high": (auc + 0.04) * measured,
        "metric_difference": side * 0.0711 * tested * measured,
        "metric_difference_ci_low": (side * 0.0711 - 0.05) * tested * measured,
        "metric_difference_ci_high": (side * 0.0711 + 0.05) * tested * measured,
        "metric_p_adjusted": 0.21 * tested * measured,
        "output": "yes",
        "feature": feature,
        "mean_abs_shap": IMPORTANCE[j] * known,
        "ci_low": IMPORTANCE[j] * 0.8 * known,
        "ci_high": IMPORTANCE[j] * 1.2 * known,
        "difference": side * (0.012 - 0.004 * j) * tested,
        "difference_ci_low": (side * (0.012 - 0.004 * j) - 0.01) * tested,
        "difference_ci_high": (side * (0.012 - 0.004 * j) + 0.01) * tested,
        "p_adjusted": (0.0004, 0.03, 0.4, 1.0)[j] * tested,
        "withheld": None if n >= 20 else "fewer than 20 rows",
    }


def rates_table() -> pd.DataFrame:
    rows = []
    for rate, values in {
        "selection_rate": (0.061, 0.231, 0.17),
        "tpr": (0.31, 0.52, 0.21),
        "fpr": (0.021, NAN, NAN),
    }.items():
        for (level, n), value in zip((("no", 606.0), ("yes", 108.0), ("(gap)", 714.0)), values, strict=True):
            rows.append(
                {
                    "segment": "afam",
                    "level": level,
                    "output": "yes",
                    "rate": rate,
                    "value": value,
                    "ci_low": value * 0.7,
                    "ci_high": value * 1.3,
                    "n": n,
                    "high_level": "yes" if level == "(gap)" else None,
                    "low_level": "no" if level == "(gap)" else None,
                    "withheld": None if value == value else "fewer than 20 rows",
                }
            )
    return pd.DataFrame(rows)


def examples_table(features: tuple[str, ...] = FEATURES, *, labelled: bool = True) -> pd.DataFrame:
    kinds = ("correct", "correct", "incorrect", "borderline", "largest_error", "prototype")
    rows = []
    for e, kind in enumerate(kinds if labelled else kinds[3:4] + kinds[5:]):
        shap = np.array(IMPORTANCE[: len(features)]) * np.where((np.arange(len(features)) + e) % 3, 1.7, -1.4)
        for j, feature in enumerate(features):
            rows.append(
                {
                    "example": float(e),
                    "kind": kind,
                    "row_id": str(17 + 101 * e),
                    "y_true": ("yes" if e % 2 else "no") if labelled else None,
                    "y_pred": "yes" if e % 3 else "no",
                    "prediction": 0.1234 + shap.sum(),
                    "output": "yes",
                    "feature": feature,
                    "feature_value": "0.2210000038146972" if j % 2 else "no",
                    "shap": shap[j],
                    "base_value": 0.1234,
                }
            )
    return pd.DataFrame(rows)


def artifact(name: str, table: pd.DataFrame, *, kind: str = "", **meta: Any) -> Artifact:
    return Artifact(name=name, kind=kind or name, table=table, meta={"quantity": QUANTITY, **meta})


CONTROL = "control_random"


def score(
    name: str,
    variant: str,
    value: float | None,
    low: float | None,
    high: float | None,
    direction: Any,
    *,
    source: str = "",
    reason: str | None = None,
) -> Score:
    return Score(
        name=name,
        variant=variant,
        value=value,
        ci_low=low,
        ci_high=high,
        direction=direction,
        n=714,
        method=METHOD,
        source=source,
        reason=reason,
    )


def scores() -> tuple[Score, ...]:
    return (
        score("masking_r2", "interventional", 0.874, 0.851, 0.893, "higher", source="Yeh et al. 2019"),
        score("masking_r2", CONTROL, -0.93, -1.1, -0.81, "higher"),
        score("additivity_error", "mean", 3.1e-16, 2.9e-16, 3.3e-16, "lower", source="Lundberg and Lee 2017"),
        score("additivity_error", "max", 2.2e-15, None, None, "lower", reason="a maximum has no interval"),
        score("additivity_error", CONTROL, 0.71, 0.68, 0.75, "lower"),
        score("rank_stability", "top5", 0.91, 0.84, 0.97, "higher"),
        score("rank_stability", "kendall_tau_b", 0.95, 0.9, 0.99, "higher"),
        score("rank_stability", CONTROL, 0.12, 0.02, 0.2, "higher"),
        score("sparsity_gini", "global", None, None, None, "higher", reason="all attributions are equal"),
    )


def figure(kind: str, slug: str, *, height: float = 3.0, title: str = "", bars: int = 8) -> Figure:
    from explain_step.plots import style

    canvas, axes = style.new_figure(style.WIDTH, height)
    rng = np.random.default_rng(len(slug))
    axes.barh([f"input {i}" for i in range(bars)][::-1], np.sort(rng.random(bars)), color=style.ACCENT)
    axes.set_xlabel("mean size of contribution")
    return style.finish(
        canvas, kind=kind, slug=slug, alt=f"Bars of {slug}, largest first", title=title or slug.capitalize()
    )


@lru_cache(maxsize=1)
def figures() -> tuple[Figure, ...]:
    wanted = [
        ("importance", "bars"),
        ("importance", "beeswarm"),
        ("dependence", "lvrat"),
        ("dependence", "pirat"),
    ]
    wanted += [("segments", "performance"), ("examples", "row-17"), ("examples", "row-118")]
    return tuple(figure(kind, slug) for kind, slug in wanted)
