"""Evidence for tests of the gate: a real snapshot of a small model, and ways to change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from explain_step.gate import RULES, Evidence, Policy, Reference, Review
from explain_step.types import Finding

DIGEST, MANIFEST_SHA, IDENTITY = "d" * 64, "e" * 64, "a" * 64
MADE = datetime(2026, 6, 1, 12, tzinfo=UTC)
PASSED = Finding(code="VER000", verdict="pass", message="every byte matches", evidence={"files": 3})


def _rows(n: int = 400) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(7)
    X = pd.DataFrame(
        {
            "income": rng.normal(50, 12, n),
            "debt": rng.uniform(0, 1, n),
            "age": rng.integers(20, 70, n).astype(float),
            "noise": rng.normal(size=n),
            "group": pd.Categorical(np.where(rng.random(n) < 0.4, "b", "a")),
        }
    )
    z = 4 * X["debt"] - 0.08 * (X["income"] - 50) + rng.normal(0, 0.8, n) - 2
    return X, np.where(z > 0, "yes", "no")


@cache
def snapshot() -> Any:
    """Return the snapshot of a small boosted model with a categorical column, explained exactly."""
    import lightgbm

    import explain_step

    X, y = _rows()
    model = lightgbm.LGBMClassifier(
        n_estimators=25,
        max_depth=3,
        random_state=0,
        n_jobs=1,
        verbose=-1,
        deterministic=True,
        monotone_constraints=[-1, 1, 0, 0, 0],
    ).fit(X, y)
    return explain_step.explain(model, X, y, segments=["group"], output="margin", background=X.head(60))


def manifest(**changes: Any) -> dict[str, Any]:
    """Return the snapshot's manifest as if it had been made for a logged model, with some keys replaced."""
    made = dict(snapshot().manifest)
    bound = {"digest": DIGEST, "model_id": "m-1", "run_id": "r-1", "binding": "verified", "binding_note": "-"}
    made["model"] = {**made["model"], **bound}
    return {**made, "snapshot_id": IDENTITY, "created_at": MADE.isoformat(), **changes}


def quantity(**changes: Any) -> dict[str, Any]:
    """Return a manifest whose explained quantity is changed."""
    return manifest(quantity={**snapshot().manifest["quantity"], **changes})


def moment() -> datetime:
    """Return a time one hour after the snapshot was made."""
    return MADE + timedelta(hours=1)


def evidence(**changes: Any) -> Evidence:
    """Return evidence on version 3 of ``mortgage`` that passes the default policy, with some fields replaced."""
    facts: dict[str, Any] = {
        "name": "mortgage",
        "version": "3",
        "now": moment(),
        "model_id": "m-1",
        "run_id": "r-1",
        "author": "ann",
        "verification": (PASSED,),
        "manifest": manifest(),
        "manifest_sha256": MANIFEST_SHA,
        "registry_sha256": MANIFEST_SHA,
        "tables": dict(snapshot().tables),
        "model_digest": DIGEST,
    }
    return Evidence(**{**facts, **changes})


def with_table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame | None], **more: Any) -> Evidence:
    """Return evidence with one table changed; ``None`` takes it away."""
    tables = dict(snapshot().tables)
    changed = change(tables.pop(name).copy())
    return evidence(tables=tables if changed is None else {**tables, name: changed}, **more)


def setting(
    name: str, rows: Mapping[str, Any], values: Mapping[str, Any], *, only: Mapping[str, Any] | None = None
) -> Evidence:
    """Return evidence in which the rows of a table that have some values get other values."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        chosen = np.ones(len(table), dtype=bool)
        for column, value in {**rows, **(only or {})}.items():
            chosen &= (table[column] == value).to_numpy()
        assert chosen.any(), "no row is meant"
        for column, value in values.items():
            table.loc[chosen, column] = value
        return balanced(table, chosen) if name == "importance" and "share" in values else table

    return with_table(name, change)


def balanced(table: pd.DataFrame, chosen: Any) -> pd.DataFrame:
    """Return a table of importance whose sizes give the shares of the chosen rows, as every true one does."""
    for _, part in table.groupby("output"):
        own, rest = part.index[chosen[part.index]], part.index[~chosen[part.index]]
        share = part.loc[own, "share"].sum(skipna=False)
        if 0 <= share < 1:
            others = part.loc[rest, "mean_abs_shap"].sum()
            total = others / (1 - share)
            table.loc[own, "mean_abs_shap"] = part.loc[own, "share"] * total
            table.loc[rest, "share"] = part.loc[rest, "mean_abs_shap"] / total
    return table


def shares_of_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of importance with the shares that its sizes have in their sum."""
    sums = table.groupby("output")["mean_abs_shap"].transform("sum")
    return table.assign(share=table["mean_abs_shap"] / sums)


def without(name: str, **rows: Any) -> Evidence:
    """Return evidence in which a table lacks the rows that have some values; all of it without values."""

    def change(table: pd.DataFrame) -> pd.DataFrame | None:
        gone = np.ones(len(table), dtype=bool)
        for column, value in rows.items():
            gone &= (table[column] == value).to_numpy()
        return table[~gone].reset_index(drop=True) if rows else None

    return with_table(name, change)


def policy(**parts: Any) -> Policy:
    """Return a policy of some parts."""
    return Policy.parse({"version": 1, **parts})


def asserting(**assertion: Any) -> Policy:
    """Return a policy with one assertion."""
    return policy(assertions=[assertion])


def findings(code: str, given: Evidence, asked: Policy) -> list[Finding]:
    """Return what one rule finds."""
    rule = next(r for r in RULES if r.code == code)
    return list(rule.check(given, asked))


def verdicts(code: str, given: Evidence, asked: Policy) -> set[str]:
    """Return the verdicts of one rule."""
    return {f.verdict for f in findings(code, given, asked)}


def said(code: str, given: Evidence, asked: Policy) -> str:
    """Return the messages of one rule."""
    return " | ".join(f.message for f in findings(code, given, asked))


def review(who: str, decision: Any = "approve", *, minutes: float = -5, **changes: Any) -> Review:
    """Return a review of this very snapshot, some minutes from now."""
    facts: dict[str, Any] = {
        "reviewer": who,
        "decision": decision,
        "snapshot_id": IDENTITY,
        "manifest_sha256": MANIFEST_SHA,
        "at": moment() + timedelta(minutes=minutes),
    }
    return Review(**{**facts, **changes})


def champion(**changes: Any) -> Reference:
    """Return version 2 behind the alias, with another snapshot of the same tables."""
    facts: dict[str, Any] = {
        "name": "mortgage",
        "version": "2",
        "snapshot_id": "f" * 64,
        "quantity": snapshot().manifest["quantity"],
        "tables": dict(snapshot().tables),
    }
    return Reference(**{**facts, **changes})
