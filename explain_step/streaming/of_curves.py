"""Mean contributions along an input, of all rows, in the bins and levels of the sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from explain_step import intervals, privacy
from explain_step.config import Config
from explain_step.streaming.moments import Moments
from explain_step.streaming.plan import Curve, Plan
from explain_step.streaming.totals import Totals
from explain_step.types import Artifact, FloatArray

INTERVAL = (
    "95%, each point for itself. shap: mean of the attributions of all {rows:,} rows in a bin (Student). pdp, ale: as "
    "of the sample: studentised bootstrap over reference rows, and percentile bootstrap over the sample's rows. All with "
    "this fitted model fixed."
)


def dependence(artifact: Artifact, plan: Plan, totals: Totals, *, config: Config) -> Artifact:
    """Return the table ``dependence`` with the counts and mean attributions of all rows; other curves stay."""
    table = artifact.table.copy()
    added: list[dict[str, Any]] = []
    ruled = {curve.feature for curve in plan.curves}
    kept = [name for name in plan.kept if name in set(table["feature"]) - ruled]
    for i, curve in enumerate(plan.curves):
        if _few_beside(curve, totals.curves[i], config=config):
            kept.append(curve.feature)
            continue
        for k, output in enumerate(plan.outputs):
            mine = (table["feature"] == curve.feature) & (table["output"] == output)
            added += _fill(table, mine, curve, i, totals, k=k, config=config)
    meta = {
        **artifact.meta,
        "interval": INTERVAL.format(rows=totals.rows),
        "method": f"SHAP means over all {totals.rows:,} rows, in bins at quantiles of a seeded sample of "
        f"{plan.sample_rows:,} of them; of that sample: {_others(str(artifact.meta.get('method', '')))}",
        "rows_of": f"Curve 'shap', counts of 'pdp' and 'density': of all {totals.rows:,} rows; everything else: of a "
        f"seeded sample of {plan.sample_rows:,} of them"
        + (f"; so are all numbers of {', '.join(map(repr, kept))}" if kept else ""),
    }
    if added:
        more = pd.DataFrame(added).reindex(columns=table.columns).astype(table.dtypes)
        table = pd.concat([table, more], ignore_index=True)
        order = {name: i for i, name in enumerate(dict.fromkeys(artifact.table["feature"]))}
        table = table.sort_values("feature", key=lambda names: names.map(order), kind="stable")
    return replace(artifact, table=table.reset_index(drop=True), meta=meta)


def _others(method: str) -> str:
    """Return how the other curves were made, without the first part, which tells of the mean attributions."""
    return method.partition("; ")[2]


def _few_beside(curve: Curve, found: Moments, *, config: Config) -> bool:
    """Return whether a few rows lie beside the named levels, so that the others would give their mean away."""
    beside = int(found.n[-1])
    return bool(curve.levels) and privacy.is_strict(config) and 0 < beside < config.min_segment


def _fill(
    table: pd.DataFrame,
    mine: pd.Series[bool],
    curve: Curve,
    i: int,
    totals: Totals,
    *,
    k: int,
    config: Config,
) -> list[dict[str, Any]]:
    """Write one feature's numbers of one output into ``table``; return rows that it lacks."""
    points = _points(totals.curves[i], k)
    shap = mine & (table["curve"] == "shap")
    off = shap & (table["level"] == privacy.MISSING) if not curve.levels else shap & False
    places = table.index[shap & ~off]
    inner = {name: values[:-1] for name, values in points.items()}
    if curve.ends and not privacy.is_strict(config):
        held = totals.places[i].mean[:-1, 0]
        inner["x"] = np.where(totals.places[i].n[:-1] > 0, held, table.loc[places, "x"])
    table.loc[places, list(inner)] = np.column_stack(list(inner.values()))
    pdp = table.index[mine & (table["curve"] == "pdp")]
    if curve.levels:
        named = table.loc[pdp, "level"].map(dict(zip(curve.levels, inner["count"], strict=True)))
        table.loc[pdp, "count"] = named.to_numpy(dtype=np.float64)
    else:
        table.loc[pdp, "count"] = totals.near[i].astype(np.float64)
        density = totals.density[i].astype(np.float64)
        if privacy.is_strict(config):
            density[density < config.min_segment] = 0.0
        table.loc[mine & (table["curve"] == "density"), "count"] = density
    return _beside(
        table, mine, off, curve, {name: values[-1] for name, values in points.items()}, config=config
    )


def _points(found: Moments, k: int) -> dict[str, FloatArray]:
    """Return value, interval and count of each group for one output; NaN where a group has no weight."""
    known = found.weight > 0
    mean = np.where(known, found.mean[:, k], np.nan)
    reach = stats.t.ppf(0.5 + intervals.LEVEL / 2, np.maximum(found.n - 1, 1)) * found.error()[:, k]
    half = np.where(found.n > 1, reach, np.nan)
    return {
        "value": mean,
        "ci_low": mean - half,
        "ci_high": mean + half,
        "count": found.n.astype(np.float64),
    }


def _beside(
    table: pd.DataFrame,
    mine: pd.Series[bool],
    off: pd.Series[bool],
    curve: Curve,
    point: Mapping[str, Any],
    *,
    config: Config,
) -> list[dict[str, Any]]:
    """Give the point beside the curve: missing values, or levels that the sample did not have."""
    smallest = config.min_segment if privacy.is_strict(config) else 1
    if point["count"] < smallest:
        return []
    if off.any():
        table.loc[off, list(point)] = list(point.values())
        return []
    first = table[mine].iloc[0]
    return [
        {
            "output": first["output"],
            "feature": curve.feature,
            "curve": "shap",
            "x": float(len(curve.levels)) if curve.levels else np.nan,
            "level": privacy.OTHER if curve.levels else privacy.MISSING,
            **point,
        }
    ]
