"""Contexts for the page: a normal one, and the hard cases around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from page_tables import (
    DIGEST,
    FEATURES,
    QUANTITY,
    ROWS_INTERVAL,
    artifact,
    dependence_table,
    examples_table,
    figures,
    importance_table,
    rates_table,
    scores,
    segments_table,
)

from explain_step.report import PageContext
from explain_step.types import Artifact, Caveat

CAVEATS = (
    Caveat(
        code="tied_ranks",
        section="importance",
        message="Ranks are not settled for 'chist', 'phist': the rows cannot tell them from a neighbour.",
    ),
    Caveat(
        code="correlated", section="importance", message="'pirat' and 'hirat' are correlated (Spearman 0.78)."
    ),
    Caveat(
        code="extrapolated_grid",
        section="dependence",
        message="Partial dependence of 'lvrat' averages over combinations that do not occur.",
    ),
)
IDENTITY: dict[str, str | None] = {
    "name": "mortgage",
    "version": "3",
    "run_id": "b2c4",
    "model_id": "m-0d7e",
    "uri": "models:/mortgage/3",
    "model_class": "XGBClassifier",
    "digest": DIGEST,
    "binding": "verified",
    "binding_note": "the logged model gives the same predictions on the explained rows",
}
REPRODUCIBILITY: dict[str, Any] = {
    "snapshot_id": DIGEST,
    "model_digest": DIGEST[::-1],
    "seed": 0,
    "method": "tree_interventional 1",
    "packages": {"explain_step": "0.1.0", "numpy": "2.4.0", "scikit-learn": "1.9.0"},
}


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
    clusters = importance_table().drop(
        columns=["permutation_importance", "permutation_ci_low", "permutation_ci_high"]
    )
    clusters = clusters.rename(columns={"feature": "cluster"})
    clusters.insert(2, "members", ['["pirat", "hirat"]', *(f'["{f}"]' for f in clusters["cluster"][1:])])
    pairs = pd.DataFrame(
        {
            "output": "yes",
            "feature_a": ["lvrat", "pirat"],
            "feature_b": ["insurance", "chist"],
            "strength": [0.0123, 0.0044],
            "ci_low": [0.01, 0.003],
            "ci_high": [0.014, 0.006],
        }
    )
    made = (
        artifact("performance", performance),
        artifact(
            "importance",
            importance_table(),
            interval=ROWS_INTERVAL,
            method="mean over rows of the absolute Shapley value",
        ),
        artifact("importance_clusters", clusters, kind="importance"),
        artifact(
            "dependence",
            dependence_table(),
            interval="95% intervals of the mean in each bin of rows.",
            method="averages of 12 bins with equally many rows",
        ),
        artifact("interactions", pairs, kind="dependence"),
        artifact(
            "segments",
            segments_table(),
            interval="95% intervals over rows.",
            method="groups against the rest, Holm-adjusted",
        ),
        artifact("segment_rates", rates_table(), kind="segments"),
        artifact(
            "examples",
            examples_table(),
            method="two correct, one incorrect, …: nearest to the median of their kind",
        ),
    )
    return PageContext(
        title="mortgage, version 3",
        identity=IDENTITY,
        status="complete",
        reason="every required section is present",
        quantity=QUANTITY,
        artifacts={a.name: a for a in made},
        scores=scores(),
        figures=figures(),
        caveats=CAVEATS,
        missing={},
        reproducibility=REPRODUCIBILITY,
        labels={"lvrat": "loan to value", "pirat": "payments to income"},
    )


def without(context: PageContext, *names: str) -> dict[str, Artifact]:
    return {k: v for k, v in context.artifacts.items() if k not in names}


def degraded() -> PageContext:
    base = normal()
    reason = "no labels were given: performance and correct or incorrect examples are missing"
    artifacts = without(base, "performance", "segment_rates")
    artifacts["segments"] = artifact("segments", segments_table(labelled=False))
    artifacts["examples"] = artifact("examples", examples_table(labelled=False))
    return replace(
        base,
        status="degraded",
        reason=f"performance: {reason}",
        artifacts=artifacts,
        missing={"performance": reason},
        identity={
            **IDENTITY,
            "binding": "declared",
            "binding_note": "the logged model could not be loaded safely",
        },
        quantity={
            **QUANTITY,
            "exact": False,
            "method": "permutation",
            "typical_error": 0.00213,
            "rows": 200,
            "background": "the 200 explained rows themselves",
        },
    )


def incomplete() -> PageContext:
    base = normal()
    missing = {
        "dependence": "failed with ValueError: could not convert string to float: 'no'",
        "segments": "no column has few enough levels and none was declared",
        "examples": "at least 10 rows are needed, there are 4",
        "scores": "masking needs at least 2 rows",
    }
    return replace(
        base,
        status="incomplete",
        reason="; ".join(f"{k}: {v}" for k, v in missing.items()),
        missing=missing,
        scores=(),
        caveats=(),
        artifacts={k: v for k, v in base.artifacts.items() if k in ("performance", "importance")},
        reproducibility={},
        figures=tuple(f for f in base.figures if f.kind == "importance"),
        identity={"model_class": "Pipeline"},
    )


HOSTILE = (
    "<script>alert(1)</script>",
    "a\nb\r\nc",
    "x" * 300,
    "\u202eevil\u202c",
    "\U0001f600 \U0001f3e0",
    "../../etc/passwd",
    "`|*_[a](http://x)",
    "\u05e9\u05dc\u05d5\u05dd \u200f",
    "{{ 7*7 }}",
    '"><img src=x onerror=alert(1)>',
    "100 %",
    "a&b;&lt;",
    "\ud800",
)


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
        base,
        title=HOSTILE[0],
        identity={**IDENTITY, "name": HOSTILE[9], "version": "3<b>", "model_class": HOSTILE[0]},
        status="degraded",
        reason=f"{HOSTILE[0]} {HOSTILE[3]}",
        artifacts=swapped,
        labels={HOSTILE[0]: HOSTILE[9]},
        quantity={
            **QUANTITY,
            "phrase": f"predicted probability of {HOSTILE[9]} = {HOSTILE[0]}",
            "background": HOSTILE[9],
        },
        caveats=tuple(Caveat(code="x", section=HOSTILE[0], message=h) for h in HOSTILE),
        missing={"performance": HOSTILE[0]},
        reproducibility={HOSTILE[0]: HOSTILE[9], "packages": {HOSTILE[0]: HOSTILE[6]}},
        figures=tuple(replace(f, alt=HOSTILE[9], title=HOSTILE[0]) for f in base.figures),
    )


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
    return replace(
        base,
        quantity=quantity,
        artifacts={
            **base.artifacts,
            "importance": artifact("importance", table),
            "dependence": artifact("dependence", dependence),
        },
    )


def regression() -> PageContext:
    base = normal()
    scale = 81_234.0
    swapped = {}
    for name, a in base.artifacts.items():
        table = a.table.copy()
        for column in (
            "mean_abs_shap",
            "ci_low",
            "ci_high",
            "mean_shap",
            "value",
            "shap",
            "base_value",
            "prediction",
            "difference",
            "difference_ci_low",
            "difference_ci_high",
        ):
            if column in table.columns and name != "performance":
                table[column] *= scale
        if "output" in table.columns:
            table["output"] = "price"
        swapped[name] = replace(a, table=table)
    swapped["performance"] = artifact(
        "performance",
        pd.DataFrame(
            {
                "metric": ["rmse"],
                "value": [48_321.7],
                "ci_low": [44_012.3],
                "ci_high": [52_900.1],
                "direction": ["lower"],
                "n": [714.0],
            }
        ),
    )
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
    "normal": normal,
    "degraded": degraded,
    "incomplete": incomplete,
    "hostile": hostile,
    "multiclass": multiclass,
    "regression": regression,
}
