"""Importance of all rows: means, intervals, ranks and shares from moments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from explain_step import intervals
from explain_step.artifacts.importance import CUMULATED
from explain_step.streaming.moments import Moments
from explain_step.streaming.plan import Plan
from explain_step.streaming.totals import Totals
from explain_step.types import Artifact, FloatArray, IntArray

BLOCK = 500
"""Columns whose differences to all others are held at a time."""
INTERVAL = (
    "95% intervals of the mean over all {rows:,} rows (Student; at so many rows the studentised mean is normal): they "
    "cover which held-out rows were drawn, with this fitted model and background fixed. Rank intervals hold for all "
    "features at once (paired differences of all pairs, {holm}); features that cannot be told apart share a rank. "
    "Shares, and the sum of the leading shares, are ratios of means (delta method), each interval for itself."
)
HOLM = "Holm"
BONFERRONI = (
    "Bonferroni; of so many columns no covariances are kept, so that intervals are wider than need be"
)


def view(artifact: Artifact, plan: Plan, totals: Totals, *, label: str) -> Artifact:
    """Return a table of importance with the numbers of all rows; permutation importance stays the sample's."""
    at = [name for name, _, _ in plan.views].index(label)
    _, names, members = plan.views[at]
    found = totals.views[at]
    signed = totals.signed.mean[0].reshape(len(plan.features), len(plan.outputs))
    parts = []
    for k, output in enumerate(dict.fromkeys(artifact.table["output"])):
        fresh = summary(found.take(slice(k, k + 1)))
        if k < len(plan.outputs):
            fresh["mean_shap"] = [float(signed[list(m), k].sum()) for m in members]
        old = artifact.table[artifact.table["output"] == output]
        part = old.set_index(label, drop=False).loc[list(names)].reset_index(drop=True)
        part = part.assign(**{name: fresh[name].to_numpy() for name in fresh.columns})
        parts.append(part.sort_values("mean_abs_shap", ascending=False, kind="stable"))
    table = pd.concat(parts, ignore_index=True)[list(artifact.table.columns)]
    sample = [name for name in ("value_correlation", "permutation_importance") if name in table]
    meta = {
        **artifact.meta,
        "interval": INTERVAL.format(rows=totals.rows, holm=HOLM if found.spread.ndim == 3 else BONFERRONI),
        "rows_of": f"of all {totals.rows:,} rows; of a seeded sample of {plan.sample_rows:,} of them: "
        + (", ".join(sample) or "which columns count as one"),
    }
    meta |= {"rows": totals.rows} if "rows" in meta else {}
    if len(plan.outputs) > 1 and plan.output_space == "prediction" and isinstance(meta.get("aggregate"), str):
        meta["aggregate"] = f"{meta['aggregate']} (divided by its total in the sample)"
    return replace(artifact, table=table, meta=meta)


def summary(found: Moments) -> pd.DataFrame:
    """Return the columns of one output (`importance.importance_table`) from the moments of its sizes, as one group."""
    mean, n, d = found.mean[0], int(found.n[0]), found.mean.shape[1]
    error = found.error()[0]
    half = _quantile(n) * error
    low, high = ranks(found)
    total = float(mean.sum())
    share = mean / total if total > 0 else np.zeros(d)
    leaders = np.argsort(-mean, kind="stable")[:CUMULATED]
    of_share, of_sums = _share_errors(found, share, leaders, total=total if total > 0 else 1.0)
    sums, out = share[leaders].cumsum(), np.full((3, d), np.nan)
    reach = _quantile(n) * of_sums
    out[:, leaders] = sums, np.clip(sums - reach, 0.0, 1.0), np.clip(sums + reach, 0.0, 1.0)
    return pd.DataFrame(
        {
            "mean_abs_shap": mean,
            "ci_low": np.maximum(mean - half, 0.0),
            "ci_high": mean + half,
            "rank": low.astype(np.float64),
            "rank_low": low.astype(np.float64),
            "rank_high": high.astype(np.float64),
            "share": share,
            "share_ci_low": np.clip(share - _quantile(n) * of_share, 0.0, 1.0),
            "share_ci_high": np.clip(share + _quantile(n) * of_share, 0.0, 1.0),
            "cumulative_share": out[0],
            "cumulative_ci_low": out[1],
            "cumulative_ci_high": out[2],
        }
    )


def _quantile(n: int) -> float:
    return float(stats.t.ppf(0.5 + intervals.LEVEL / 2, max(n - 1, 1)))


def _share_errors(
    found: Moments, share: FloatArray, leaders: IntArray, *, total: float
) -> tuple[FloatArray, FloatArray]:
    """Return the standard errors of the shares (d,) and of the leaders' cumulated shares.

    A share is linearised as ``(x_j - share_j sum x) / total``. Without covariances the error of a sum is at most the sum
    of the errors.
    """
    squared = found.squared_error()[0]
    if squared.ndim == 1:
        error = np.sqrt(np.maximum(squared, 0.0))
        alone = (error * (1 - share) + share * (error.sum() - error)) / total
        inside, held = error[leaders].cumsum(), share[leaders].cumsum()
        return alone, (inside * (1 - held) + held * (error.sum() - inside)) / total
    weights = (np.eye(len(share)) - share[:, None]) / total
    cumulated = weights[leaders].cumsum(axis=0)
    return _deviation(weights, squared), _deviation(cumulated, squared)


def _deviation(weights: FloatArray, covariance: FloatArray) -> FloatArray:
    variance = ((weights @ covariance) * weights).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def ranks(found: Moments) -> tuple[IntArray, IntArray]:
    """Return the simultaneous rank intervals of the means (see `intervals.rank_interval`)."""
    mean, n, d = found.mean[0], int(found.n[0]), found.mean.shape[1]
    squared = found.squared_error()[0]
    if squared.ndim == 2:
        separated, difference = intervals.separated_means(mean, squared, n=n)
        low = 1 + (separated & (difference < 0)).sum(axis=1)
        return low.astype(np.int64), (d - (separated & (difference > 0)).sum(axis=1)).astype(np.int64)
    error = np.sqrt(np.maximum(squared, 0.0))
    most = stats.t.isf((1 - intervals.LEVEL) / (d * (d - 1)), max(n - 1, 1))
    low, high = np.ones(d, dtype=np.int64), np.full(d, d, dtype=np.int64)
    for start in range(0, d, BLOCK):
        some = slice(start, start + BLOCK)
        gap = mean[some, None] - mean[None, :]
        reach = most * (error[some, None] + error[None, :]) + 1e-12 * np.abs(mean).max()
        low[some] += (gap < -reach).sum(axis=1)
        high[some] -= (gap > reach).sum(axis=1)
    return low, high
