"""The machine summary of a snapshot: what a dashboard or a script wants to know first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from explain_step.canonical import plain_json
from explain_step.snapshot.manifest import SCHEMA_VERSION, ModelRef, score_record
from explain_step.types import Caveat, Score

TOP = 10
"""Features per output."""
_IMPORTANCE = (
    "output",
    "feature",
    "rank",
    "rank_low",
    "rank_high",
    "mean_abs_shap",
    "ci_low",
    "ci_high",
    "share",
)


def summarise(
    *,
    snapshot_id: str,
    status: str,
    reason: str,
    model: ModelRef,
    quantity: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    scores: tuple[Score, ...],
    caveats: tuple[Caveat, ...],
    missing: Mapping[str, str],
    top: int = TOP,
) -> dict[str, Any]:
    """Return status, leading importances, performance, scores and what is missing, as plain JSON."""
    summary: dict[str, Any] = plain_json(
        {
            "schema_version": SCHEMA_VERSION,
            "snapshot_id": snapshot_id,
            "status": status,
            "reason": reason,
            "model": asdict(model),
            "quantity": quantity,
            "importance": _leading(tables.get("importance"), top=top),
            "performance": _records(tables.get("performance")),
            "scores": [_score(score) for score in scores],
            "missing": missing,
            "caveats": [caveat.message for caveat in caveats],
        }
    )
    return summary


def _score(score: Score) -> dict[str, Any]:
    return {key: value for key, value in score_record(score).items() if key not in ("method", "source")}


def _leading(table: pd.DataFrame | None, *, top: int) -> list[dict[str, Any]]:
    if table is None or not {"output", "feature", "rank"} <= set(table.columns):
        return []
    columns = [name for name in _IMPORTANCE if name in table.columns]
    ordered = table.sort_values(
        ["output", "mean_abs_shap", "rank", "feature"], ascending=[True, False, True, True], kind="stable"
    )
    return _records(ordered.groupby("output", sort=False).head(top)[columns])


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
