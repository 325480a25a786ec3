"""Contexts for the page: mortgage-like numbers in the columns of the tables' contract, and the hard cases around them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from explain_step.report import PageContext
from explain_step.types import Artifact, Caveat, Figure, MethodSpec, Score

FEATURES = (
    "lvrat", "pirat", "chist", "phist", "afam", "hirat", "insurance",
    "mhist", "selfemp", "single", "unemp", "hschool", "condomin",
)  # fmt: skip
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
METHOD = MethodSpec(name="tree_interventional", version="1")
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
ROWS_INTERVAL = "95 % intervals of the mean over rows (studentised bootstrap): they cover which rows were drawn, not refits."


def importance_table(
    features: tuple[str, ...] = FEATURES, *, outputs: tuple[str, ...] = ("yes",), ranks: Any = RANKS
) -> pd.DataFrame:
    parts = []
    for k, output in enumerate(outputs):
        mean = np.roll(np.array(IMPORTANCE[: len(features)]), k)
        part = pd.DataFrame(
            {
                "output": output,
                "feature": list(features),
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


def segments_table(features: tuple[str, ...] = FEATURES, *, labelled: bool = True) -> pd.DataFrame:
    groups = (
        ("afam", "no", 606),
        ("afam", "yes", 108),
        ("single", "no", 431),
        ("single", "yes", 283),
        ("pirat > 0.4", "true", 12),
    )
    rows = []
    for g, (segment, level, n) in enumerate(groups):
        hidden = n < 20
        for j, feature in enumerate(features[:4]):
            size = IMPORTANCE[j] * (1 + 0.1 * g)
            auc = float("nan") if hidden or not labelled else (0.842, 0.771, 0.853, 0.828, 0.0)[g]
            rows.append(
                {
                    "segment": segment, "level": level, "n": float(n), "metric": "roc_auc" if labelled else None,
                    "metric_value": auc, "metric_ci_low": auc - 0.04, "metric_ci_high": auc + 0.04, "output": "yes",
                    "feature": feature, "mean_abs_shap": float("nan") if hidden else size,
                    "ci_low": float("nan") if hidden else size * 0.8, "ci_high": float("nan") if hidden else size * 1.2,
                    "difference": float("nan") if hidden else 0.012 - 0.004 * j,
                    "difference_ci_low": float("nan") if hidden else 0.002 - 0.004 * j,
                    "difference_ci_high": float("nan") if hidden else 0.022 - 0.004 * j,
                    "p_adjusted": float("nan") if hidden else (0.0004, 0.03, 0.4, 1.0)[j],
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def examples_table(features: tuple[str, ...] = FEATURES, *, labelled: bool = True) -> pd.DataFrame:
    kinds = ("correct", "correct", "incorrect", "borderline", "largest_error", "prototype")
    rows = []
    for e, kind in enumerate(kinds if labelled else kinds[3:4] + kinds[5:]):
        shap = np.array(IMPORTANCE[: len(features)]) * np.where((np.arange(len(features)) + e) % 3, 1.7, -1.4)
        for j, feature in enumerate(features):
            rows.append(
                {
                    "example": float(e), "kind": kind, "row_id": str(17 + 101 * e), "y_true": ("yes" if e % 2 else "no") if labelled else None,
                    "y_pred": "yes" if e % 3 else "no", "prediction": 0.1234 + shap.sum(), "output": "yes", "feature": feature,
                    "feature_value": "0.2210000038146972" if j % 2 else "no", "shap": shap[j], "base_value": 0.1234,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def artifact(name: str, table: pd.DataFrame, *, kind: str = "", **meta: Any) -> Artifact:
    return Artifact(name=name, kind=kind or name, table=table, meta={"quantity": QUANTITY, **meta})


def scores() -> tuple[Score, ...]:
    def make(
        name: str,
        variant: str,
        value: float | None,
        low: float | None,
        high: float | None,
        direction: Any,
        **more: Any,
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
            **more,
        )

    return (
        make("additivity_error", "max", 3.1e-16, None, None, "lower", source="Lundberg and Lee 2017"),
        make(
            "masking_r2",
            "background",
            0.874,
            0.851,
            0.893,
            "higher",
            source="Yeh et al. 2019, arXiv:1901.09392",
        ),
        make("masking_r2", "random_control", -0.93, -1.1, -0.81, "higher"),
        make("rank_stability", "top5", 0.91, 0.84, 0.97, "higher"),
        make("rank_stability", "random_control", 0.12, 0.02, 0.2, "higher"),
        make("sparsity_gini", "normalised", 0.553, 0.531, 0.575, "higher", source="Hurley and Rickard 2009"),
        make(
            "seed_stability", "default", None, None, None, "higher", reason="the explainer is deterministic"
        ),
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


def figures() -> tuple[Figure, ...]:
    wanted = [
        ("importance", "bars"),
        ("importance", "beeswarm"),
        ("dependence", "lvrat"),
        ("dependence", "pirat"),
    ]
    wanted += [("segments", "performance"), ("examples", "row-17"), ("examples", "row-118")]
    return tuple(figure(kind, slug) for kind, slug in wanted)


CAVEATS = (
    Caveat(code="tied_ranks", section="importance", message="Ranks are not settled for 'chist', 'phist': the rows cannot tell them from a neighbour."),
    Caveat(code="correlated", section="importance", message="'pirat' and 'hirat' are correlated (Spearman 0.78)."),
    Caveat(code="extrapolated_grid", section="dependence", message="Partial dependence of 'lvrat' averages over combinations that do not occur."),
)  # fmt: skip
IDENTITY: dict[str, str | None] = {
    "name": "mortgage", "version": "3", "run_id": "b2c4", "model_id": "m-0d7e", "uri": "models:/mortgage/3",
    "model_class": "XGBClassifier", "digest": DIGEST, "binding": "verified",
    "binding_note": "the logged model gives the same predictions on the explained rows",
}  # fmt: skip
REPRODUCIBILITY: dict[str, Any] = {
    "snapshot_id": DIGEST, "model_digest": DIGEST[::-1], "seed": 0, "method": "tree_interventional 1",
    "packages": {"explain_step": "0.1.0", "numpy": "2.4.0", "scikit-learn": "1.9.0"},
}  # fmt: skip


def normal() -> PageContext:
    performance = pd.DataFrame(
        {
            "metric": ["roc_auc", "log_loss", "accuracy"],
            "value": [0.8374, 0.2613, 0.8926],
            "ci_low": [0.7962, 0.2311, 0.8703],
            "ci_high": [0.8749, 0.2952, 0.9141],
            "direction": ["higher", "lower", "higher"],
            "n": [714.0] * 3,
        }
    )
    rates = pd.DataFrame(
        {"segment": ["afam"] * 2, "level": ["no", "yes"], "n": [606.0, 108.0], "selection_rate": [0.061, 0.231], "selection_rate_ci_low": [0.044, 0.16],
         "selection_rate_ci_high": [0.083, 0.32], "tpr": [0.31, 0.52], "tpr_ci_low": [0.21, 0.36], "tpr_ci_high": [0.42, 0.67], "fpr": [0.021, float("nan")]}
    )  # fmt: skip
    clusters = importance_table().drop(
        columns=["permutation_importance", "permutation_ci_low", "permutation_ci_high"]
    )
    clusters = clusters.rename(columns={"feature": "cluster"})
    clusters.insert(2, "members", ['["pirat", "hirat"]', *(f'["{f}"]' for f in clusters["cluster"][1:])])
    pairs = pd.DataFrame({"output": "yes", "feature_a": ["lvrat", "pirat"], "feature_b": ["insurance", "chist"], "strength": [0.0123, 0.0044], "ci_low": [0.01, 0.003], "ci_high": [0.014, 0.006]})  # fmt: skip
    made = (
        artifact("performance", performance),
        artifact("importance", importance_table(), interval=ROWS_INTERVAL, method="mean over rows of the absolute Shapley value"),
        artifact("importance_clusters", clusters, kind="importance"),
        artifact("dependence", dependence_table(), interval="95 % intervals of the mean in each bin of rows.", method="averages of 12 bins with equally many rows"),
        artifact("interactions", pairs, kind="dependence"),
        artifact("segments", segments_table(), interval="95 % intervals over rows.", method="groups against the rest, Holm-adjusted"),
        artifact("segment_rates", rates, kind="segments"),
        artifact("examples", examples_table(), method="two correct, one incorrect, …: nearest to the median of their kind"),
    )  # fmt: skip
    return PageContext(
        title="mortgage, version 3", identity=IDENTITY, status="complete", reason="every required section is present",
        quantity=QUANTITY, artifacts={a.name: a for a in made}, scores=scores(), figures=figures(), caveats=CAVEATS,
        missing={}, reproducibility=REPRODUCIBILITY, labels={"lvrat": "loan to value", "pirat": "payments to income"},
    )  # fmt: skip


def without(context: PageContext, *names: str) -> dict[str, Artifact]:
    return {k: v for k, v in context.artifacts.items() if k not in names}


def degraded() -> PageContext:
    base = normal()
    reason = "no labels were given (y=None): performance and correct or incorrect examples are missing"
    artifacts = without(base, "performance", "segment_rates")
    artifacts["segments"] = artifact("segments", segments_table(labelled=False))
    artifacts["examples"] = artifact("examples", examples_table(labelled=False))
    return replace(
        base, status="degraded", reason=f"performance: {reason}", artifacts=artifacts, missing={"performance": reason},
        identity={**IDENTITY, "binding": "declared", "binding_note": "the logged model could not be loaded safely"},
        quantity={**QUANTITY, "exact": False, "method": "permutation", "typical_error": 0.00213, "rows": 200, "background": "the 200 explained rows themselves"},
    )  # fmt: skip


def incomplete() -> PageContext:
    base = normal()
    missing = {
        "dependence": "failed with ValueError: could not convert string to float: 'no'",
        "segments": "no column has few enough levels and none was declared",
        "examples": "at least 10 rows are needed, there are 4",
        "scores": "masking needs at least 2 rows",
    }
    return replace(
        base, status="incomplete", reason="; ".join(f"{k}: {v}" for k, v in missing.items()), missing=missing, scores=(), caveats=(),
        artifacts={k: v for k, v in base.artifacts.items() if k in ("performance", "importance")}, reproducibility={},
        figures=tuple(f for f in base.figures if f.kind == "importance"), identity={"model_class": "Pipeline"},
    )  # fmt: skip


HOSTILE = (
    "<script>alert(1)</script>", "a\nb\r\nc", "x" * 300, "\u202eevil\u202c", "\U0001f600 \U0001f3e0", "../../etc/passwd", "`|*_[a](http://x)",
    "\u05e9\u05dc\u05d5\u05dd \u200f", "{{ 7*7 }}", '"><img src=x onerror=alert(1)>', "100 %", "a&b;&lt;", "\ud800",
)  # fmt: skip


def hostile() -> PageContext:
    base = normal()
    rename = dict(zip(FEATURES, HOSTILE, strict=True))
    swapped = {}
    for name, a in base.artifacts.items():
        table = a.table.copy()
        for column in table.columns:
            if column in (
                "feature",
                "segment",
                "feature_b",
                "cluster",
                "level",
                "feature_value",
                "row_id",
                "x",
            ):
                table[column] = pd.Series(
                    [rename.get(v, v) for v in table[column]], dtype=object, index=table.index
                )
            if column in ("level", "feature_value"):
                table[column] = pd.Series(
                    [HOSTILE[0] if v == "no" else v for v in table[column]], dtype=object, index=table.index
                )
        swapped[name] = replace(a, table=table)
    return replace(
        base, title=HOSTILE[0], identity={**IDENTITY, "name": HOSTILE[9], "version": "3<b>", "model_class": HOSTILE[0]},
        status="degraded", reason=f"{HOSTILE[0]} {HOSTILE[3]}", artifacts=swapped, labels={HOSTILE[0]: HOSTILE[9]},
        quantity={**QUANTITY, "phrase": f"predicted probability of {HOSTILE[9]} = {HOSTILE[0]}", "background": HOSTILE[9]},
        caveats=tuple(Caveat(code="x", section=HOSTILE[0], message=h) for h in HOSTILE),
        missing={"performance": HOSTILE[0]}, reproducibility={HOSTILE[0]: HOSTILE[9], "packages": {HOSTILE[0]: HOSTILE[6]}},
        figures=tuple(replace(f, alt=HOSTILE[9], title=HOSTILE[0]) for f in base.figures),
    )  # fmt: skip


def multiclass() -> PageContext:
    base = normal()
    outputs = ("setosa", "versicolor", "virginica")
    table = importance_table(outputs=(*outputs, "(mean over outputs)"))
    quantity = {
        **QUANTITY,
        "outputs": list(outputs),
        "target": "species",
        "phrase": "predicted probability of species = setosa",
    }
    dependence = pd.concat([dependence_table(output=o) for o in outputs], ignore_index=True)
    return replace(base, quantity=quantity, artifacts={**base.artifacts, "importance": artifact("importance", table), "dependence": artifact("dependence", dependence)})  # fmt: skip


def regression() -> PageContext:
    base = normal()
    scale = 81_234.0
    swapped = {}
    for name, a in base.artifacts.items():
        table = a.table.copy()
        for column in ("mean_abs_shap", "ci_low", "ci_high", "mean_shap", "value", "shap", "base_value", "prediction", "difference", "difference_ci_low", "difference_ci_high"):  # fmt: skip
            if column in table.columns and name != "performance":
                table[column] *= scale
        if "output" in table.columns:
            table["output"] = "price"
        swapped[name] = replace(a, table=table)
    swapped["performance"] = artifact(
        "performance",
        pd.DataFrame({"metric": ["rmse"], "value": [48_321.7], "ci_low": [44_012.3], "ci_high": [52_900.1], "direction": ["lower"], "n": [714.0]}),
    )  # fmt: skip
    quantity = {
        **QUANTITY,
        "output_space": "prediction",
        "outputs": ["price"],
        "target": "price",
        "phrase": "prediction of price",
        "rows_given": 5000,
    }
    return replace(
        base, artifacts=without(replace(base, artifacts=swapped), "segment_rates"), quantity=quantity
    )


CONTEXTS = {
    "normal": normal, "degraded": degraded, "incomplete": incomplete, "hostile": hostile, "multiclass": multiclass, "regression": regression,
}  # fmt: skip
