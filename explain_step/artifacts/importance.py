"""Global importance: mean |SHAP| with intervals and ranks, permutation importance, groups and clusters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from explain_step import intervals
from explain_step.artifacts import clusters as clustering
from explain_step.artifacts import columns, noise_correction, swarm
from explain_step.artifacts.noise_correction import Sizes
from explain_step.artifacts.permutation_importance import Permutation, permutation_importance
from explain_step.config import Config, names
from explain_step.errors import InvalidInput, NotApplicable
from explain_step.quantity import quantity
from explain_step.seeds import Seeds
from explain_step.ties import dense_ranks
from explain_step.types import Artifact, Attributions, Caveat, FloatArray, IntArray, Section, Subject

MEAN_OVER_OUTPUTS = "(mean over outputs)"
FULL_RANKS = 1000
"""Up to this many features every pair is compared; the features after these are ranked as one block."""
TIED = "tied_ranks"
CUMULATED = 10
"""So many leading features have the share that they and all larger ones hold together."""
WIDE = 20_000_000
"""Above this many cells (rows times features) fewer resamples are drawn."""
INTERVAL = (
    "95% intervals of the mean over rows (studentised bootstrap, 999 resamples; its expansion where rows are many): "
    "they cover which held-out rows were drawn, with this fitted model and background fixed. Rank intervals "
    "hold for all features at once (paired differences of all pairs, Holm); features that cannot be told "
    "apart "
    "share a rank. Shares, and the sum of the leading shares, are ratios of means (delta method), each interval for itself."
)
ESTIMATED = INTERVAL.replace(
    "they cover which held-out rows were drawn, with",
    "they cover which held-out rows were drawn and the sampling noise of their estimated values (what noise adds on "
    "average is subtracted), with",
)


def build(subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds) -> Section:
    """Return the tables ``importance``, ``beeswarm`` and, where they apply, those of groups and clusters.

    Table ``importance`` has one row per output and feature, and for several outputs the output ``(mean over
    outputs)``, each sorted by ``mean_abs_shap``. Columns beside those of the contract: ``share_ci_low,
    share_ci_high`` (share of the sum over features), ``cumulative_share, cumulative_ci_low, cumulative_ci_high``
    (of this feature and all larger ones together, for the first `CUMULATED`), ``value_correlation`` (Spearman
    correlation between a numeric column's value and its attribution: the direction of the effect); where values are
    estimated, ``mean_abs_shap_raw`` (before what noise adds was subtracted, see `noise_correction`) and
    ``mean_standard_error`` (of one value).

    Raises
    ------
    NotApplicable
        There are fewer than two rows or no features.
    InvalidInput
        ``config.feature_groups`` names an unknown column, or one column twice.
    """
    check_groups(config.feature_groups, attributions.feature_names)
    if len(attributions.rows) < 2:
        msg = f"importance needs at least 2 explained rows, there are {len(attributions.rows)}"
        raise NotApplicable(msg)
    explained = subject.take(attributions.rows)
    order = ranking(attributions, weights=explained.weights)
    permutation = permutation_importance(subject, config=config, seeds=seeds, order=order)
    meta = {"quantity": quantity(subject, attributions), **_certainty(attributions)}
    table = importance_table(attributions, weights=explained.weights, seeds=seeds)
    table = _with_directions(table, explained.X, attributions=attributions)
    table = _with_permutation(table, attributions.feature_names, found=permutation)
    main = Artifact(
        name="importance",
        kind="importance",
        table=table,
        meta=meta | _importance_meta(attributions, permutation),
    )
    bees = swarm.beeswarm(explained, attributions, order=order, config=config)
    artifacts = [main, Artifact(name="beeswarm", kind="importance", table=bees[0], meta=meta | bees[1])]
    found = clustering.find(explained.X, order=order, rng=seeds.rng("importance", "clusters"))
    grouped = _views(explained, attributions, config=config, found=found, seeds=seeds, meta=meta)
    caveats = [*permutation.caveats, *found.caveats(), *_caveats(attributions, table)]
    return Section(artifacts=(*artifacts, *grouped), caveats=tuple(caveats))


def ranking(attributions: Attributions, *, weights: FloatArray | None = None) -> IntArray:
    """Return feature positions by descending importance, as in the table: of several outputs their mean."""
    found = noise_correction.sizes(attributions, weights=weights)
    scale = _scale_of_outputs(found.rows, weights, space=attributions.output_space)
    mean = _weighted(_mean_output(found, scale).rows[:, :, 0], weights)
    return np.argsort(-mean, kind="stable").astype(np.int64)


def _weighted(values: FloatArray, weights: FloatArray | None) -> FloatArray:
    return np.asarray(np.average(values, axis=0, weights=weights), dtype=np.float64)


def _certainty(attributions: Attributions) -> dict[str, str]:
    """Return what the intervals cover, and for estimates what was done about their noise."""
    if attributions.standard_error is None:
        return {"interval": INTERVAL}
    return {"interval": ESTIMATED, "noise": noise_correction.NOISE}


def importance_table(
    attributions: Attributions, *, weights: FloatArray | None, seeds: Seeds, label: str = "feature"
) -> pd.DataFrame:
    """Return mean |SHAP|, its interval, rank interval, mean signed effect and share per output and feature.

    Parameters
    ----------
    attributions : Attributions of n rows, d features (or groups) and k outputs
    weights : ndarray of shape (n,), optional
    seeds : Seeds
    label : str
        Name of the column that holds feature (or group) names.
    """
    found = noise_correction.sizes(attributions, weights=weights)
    parts = []
    for k, output in enumerate(attributions.output_names):
        rng = seeds.rng("importance", label, output)
        part = _summary(_one_output(found, k), weights=weights, rng=rng)
        part.insert(0, "mean_shap", _weighted(attributions.values[:, :, k], weights))
        part = part.assign(**_noise(attributions, k, weights=weights))
        parts.append(_named(part, attributions.feature_names, output=output, label=label))
    if len(attributions.output_names) > 1:
        rng = seeds.rng("importance", label, MEAN_OVER_OUTPUTS)
        scale = _scale_of_outputs(found.rows, weights, space=attributions.output_space)
        part = _summary(_mean_output(found, scale), weights=weights, rng=rng)
        part.insert(0, "mean_shap", np.nan)
        if attributions.standard_error is not None:
            plain = np.abs(attributions.values) / scale
            part["mean_abs_shap_raw"] = _weighted(plain.mean(axis=2), weights)
        parts.append(_named(part, attributions.feature_names, output=MEAN_OVER_OUTPUTS, label=label))
    return pd.concat(parts, ignore_index=True)


def _noise(attributions: Attributions, k: int, *, weights: FloatArray | None) -> dict[str, FloatArray]:
    if attributions.standard_error is None:
        return {}
    return {
        "mean_abs_shap_raw": _weighted(np.abs(attributions.values[:, :, k]), weights),
        "mean_standard_error": _weighted(attributions.standard_error[:, :, k], weights),
    }


def _one_output(found: Sizes, k: int) -> Sizes:
    ceiling = None if found.ceiling is None else found.ceiling[:, k : k + 1]
    return Sizes(rows=found.rows[:, :, k : k + 1], ceiling=ceiling)


def _scale_of_outputs(size: FloatArray, weights: FloatArray | None, *, space: str) -> FloatArray:
    """Return what sizes are divided by before outputs are averaged: (k,). Regression targets have own units."""
    if space != "prediction":
        return np.ones(size.shape[2])
    total = _weighted(size.sum(axis=1), weights)
    return np.asarray(np.where(total > 0, total, 1.0))


def _mean_output(found: Sizes, scale: FloatArray) -> Sizes:
    ceiling = None if found.ceiling is None else (found.ceiling / scale).mean(axis=1, keepdims=True)
    return Sizes(rows=(found.rows / scale).mean(axis=2, keepdims=True), ceiling=ceiling)


def _summary(found: Sizes, *, weights: FloatArray | None, rng: np.random.Generator) -> pd.DataFrame:
    """Return the columns of one output; the sizes have a last axis of length one."""
    size = np.ascontiguousarray(found.rows[:, :, 0])
    resamples = intervals.RESAMPLES if size.size <= WIDE else 199
    mean, low, high = intervals.mean_interval(size, rng=rng, weights=weights, resamples=resamples)
    if found.ceiling is not None:
        # the mean of corrected rows is at least zero but for rounding
        mean, low = np.maximum(mean, 0.0), np.minimum(low, found.ceiling[:, 0])
    rank_low, rank_high = rank_bounds(size, weights=weights)
    total = float(mean.sum())
    share = mean / total if total > 0 else np.zeros_like(mean)
    # a ratio of two means: its rows are linearised so that the same interval applies (delta method)
    linear = share + (size - share * size.sum(axis=1, keepdims=True)) / (total if total > 0 else 1.0)
    leaders = np.argsort(-mean, kind="stable")[:CUMULATED]
    rows = np.hstack([linear, linear[:, leaders].cumsum(axis=1)])
    _, low_shares, high_shares = intervals.mean_interval(rows, rng=rng, weights=weights, resamples=resamples)
    d = len(mean)
    return pd.DataFrame(
        {
            "mean_abs_shap": mean,
            "ci_low": np.maximum(low, 0.0),
            "ci_high": high,
            "rank": rank_low.astype(np.float64),
            "rank_low": rank_low.astype(np.float64),
            "rank_high": rank_high.astype(np.float64),
            "share": share,
            "share_ci_low": np.clip(low_shares[:d], 0.0, 1.0),
            "share_ci_high": np.clip(high_shares[:d], 0.0, 1.0),
            "cumulative_share": _placed(share[leaders].cumsum(), leaders, d=d),
            "cumulative_ci_low": _placed(np.clip(low_shares[d:], 0.0, 1.0), leaders, d=d),
            "cumulative_ci_high": _placed(np.clip(high_shares[d:], 0.0, 1.0), leaders, d=d),
        }
    )


def _placed(values: FloatArray, at: IntArray, *, d: int) -> FloatArray:
    """Return (d,) with ``values`` at the positions ``at`` and NaN elsewhere."""
    out = np.full(d, np.nan)
    out[at] = values
    return out


def rank_bounds(size: FloatArray, *, weights: FloatArray | None) -> tuple[IntArray, IntArray]:
    """Return simultaneous rank intervals; beyond `FULL_RANKS` features the smallest count as one block.

    The block is represented by its largest value in each row, which is at least every one of its members: a
    feature separated from it is separated from all of them, so that the intervals stay valid (and become
    wider).
    """
    d = size.shape[1]
    if d <= FULL_RANKS:
        return intervals.rank_interval(size, weights=weights)
    order = np.argsort(-_weighted(size, weights), kind="stable")
    top, rest = order[:FULL_RANKS], order[FULL_RANKS:]
    block = size[:, rest].max(axis=1, keepdims=True)
    separated, difference = intervals.separated_pairs(np.hstack([size[:, top], block]), weights=weights)
    larger, smaller = separated & (difference < 0), separated & (difference > 0)
    below = smaller[:-1, :-1].sum(axis=1) + np.where(smaller[:-1, -1], len(rest), 0)
    low, high = np.empty(d, dtype=np.int64), np.full(d, d, dtype=np.int64)
    low[top], high[top] = 1 + larger[:-1, :-1].sum(axis=1), d - below
    low[rest] = 1 + larger[-1, :-1].sum()
    return low, high


def _named(part: pd.DataFrame, features: Sequence[str], *, output: str, label: str) -> pd.DataFrame:
    part.insert(0, label, list(features))
    part.insert(0, "output", output)
    return part.sort_values("mean_abs_shap", ascending=False, kind="stable")


def _with_directions(table: pd.DataFrame, X: pd.DataFrame, *, attributions: Attributions) -> pd.DataFrame:
    """Add Spearman's correlation of value and attribution; NaN for levels and the mean over outputs."""
    found: dict[tuple[str, str], float] = {}
    for j, feature in enumerate(attributions.feature_names):
        ranks = columns.value_ranks(X[feature])
        for k, output in enumerate(attributions.output_names):
            found[output, feature] = _spearman(ranks, attributions.values[:, j, k])
    keys = zip(table["output"], table["feature"], strict=True)
    return table.assign(value_correlation=[found.get(key, float("nan")) for key in keys])


def _spearman(ranks: FloatArray, phi: FloatArray) -> float:
    known = ~np.isnan(ranks)
    if known.sum() < 3:
        return float("nan")
    # equal attributions differ in their last bits, by parts of the largest: another engine would rank them otherwise
    steps = dense_ranks(phi[known] + 2 * np.abs(phi[known]).max()).astype(np.float64)
    if np.ptp(ranks[known]) == 0 or np.ptp(steps) == 0:
        return float("nan")
    return float(np.corrcoef(columns.scaled_ranks(ranks[known]), columns.scaled_ranks(steps))[0, 1])


def _with_permutation(table: pd.DataFrame, features: Sequence[str], *, found: Permutation) -> pd.DataFrame:
    position = {name: i for i, name in enumerate(features)}
    rows = [position[name] for name in table["feature"]]
    return table.assign(
        permutation_importance=found.value[rows],
        permutation_ci_low=found.low[rows],
        permutation_ci_high=found.high[rows],
    )


def _importance_meta(attributions: Attributions, permutation: Permutation) -> dict[str, Any]:
    several = len(attributions.output_names) > 1
    scaled = attributions.output_space == "prediction"
    mean = "the mean over outputs of each output's share" if scaled else "the mean over outputs of |SHAP|"
    return {
        "method": "mean over rows of the absolute Shapley value of each raw column",
        "aggregate": f"{MEAN_OVER_OUTPUTS} is {mean}" if several else None,
        "rows": len(attributions.rows),
        "permutation": permutation.meta(),
    }


def check_groups(groups: Mapping[str, Sequence[str]], features: Sequence[str]) -> None:
    """Raise `InvalidInput` for a group that is empty, names an unknown column or one of another group."""
    owner: dict[str, str] = {}
    for group, members in groups.items():
        unknown = [m for m in members if m not in set(features)]
        if not members or unknown:
            found = f"has unknown {names(unknown)}" if unknown else "is empty"
            msg = f"Option feature_groups: group {group!r} must list input columns, it {found}."
            raise InvalidInput(msg)
        for member in members:
            if member in owner:
                msg = (
                    f"Option feature_groups: {member!r} is in {owner[member]!r} and {group!r}; name it once."
                )
                raise InvalidInput(msg)
            owner[member] = group
    clash = [g for g in groups if g in set(features) and owner.get(g) != g]
    if clash:
        msg = (
            f"Option feature_groups: a group cannot have the name of a column outside it, got {names(clash)}."
        )
        raise InvalidInput(msg)


def summed(attributions: Attributions, partition: Sequence[tuple[str, Sequence[int]]]) -> Attributions:
    """Return the attributions of sets of features: sums of their columns, with the errors of the sums.

    Parameters
    ----------
    partition : sequence of (name, positions)
        Every feature in exactly one set, so that the sums still add up to the prediction.
    """
    sets = [list(members) for _, members in partition]
    error, parts = attributions.standard_error, attributions.parts
    return Attributions(
        values=np.stack([attributions.values[:, m].sum(axis=1) for m in sets], axis=1),
        standard_error=None if error is None else noise_correction.error_of_sums(error, sets),
        parts=None if parts is None else np.stack([parts[:, :, m].sum(axis=2) for m in sets], axis=2),
        base_values=attributions.base_values,
        feature_names=tuple(name for name, _ in partition),
        output_names=attributions.output_names,
        output_space=attributions.output_space,
        method=attributions.method,
        rows=attributions.rows,
    )


def _views(
    explained: Subject,
    attributions: Attributions,
    *,
    config: Config,
    found: clustering.Clusters,
    seeds: Seeds,
    meta: Mapping[str, Any],
) -> list[Artifact]:
    """Return the views in which several columns count as one: declared groups, and clusters found."""
    features = attributions.feature_names
    declared = {g: [features.index(m) for m in members] for g, members in config.feature_groups.items()}
    views = [
        ("group", "declared in feature_groups", declared),
        ("cluster", clustering.METHOD, found.named(features)),
    ]
    artifacts = []
    for label, method, sets in views:
        if not sets:
            continue
        taken = {j for members in sets.values() for j in members}
        partition = [*sets.items(), *((f, [j]) for j, f in enumerate(features) if j not in taken)]
        table = importance_table(
            summed(attributions, partition), weights=explained.weights, seeds=seeds, label=label
        )
        members = {name: json.dumps([features[j] for j in m], ensure_ascii=False) for name, m in partition}
        table.insert(2, "members", [members[name] for name in table[label]])
        extra: dict[str, Any] = {
            "method": f"attributions summed per {label}; {label}s {method}",
            "members": "JSON list of columns",
        }
        extra |= {"pairs": found.pairs_as_records(features)} if label == "cluster" else {}
        artifacts.append(
            Artifact(name=f"importance_{label}s", kind="importance", table=table, meta={**meta, **extra})
        )
    return artifacts


def _caveats(attributions: Attributions, table: pd.DataFrame) -> list[Caveat]:
    """State what a reader must know: few rows, ties at the top, Monte Carlo noise."""
    found = []
    n = len(attributions.rows)
    if n < 50:
        text = f"Importance rests on {n} rows; its intervals are wide and only approximate."
        found.append(Caveat(code="few_rows", section="importance", message=text))
    if not np.abs(attributions.values).max() > 0:
        return found  # the explainers say so, and why
    found += ties(table)
    if "mean_standard_error" in table:
        noisy = (table["mean_standard_error"] > 0) & (table["ci_low"] <= 0)
        weak = list(dict.fromkeys(table.loc[noisy, "feature"]))
        if weak:
            text = f"Estimation noise alone could explain the importance of {names(weak)}: its interval begins at zero."
            found.append(Caveat(code="monte_carlo_noise", section="importance", message=text))
    return found


def ties(table: pd.DataFrame) -> list[Caveat]:
    """Name the leading features whose ranks the rows do not settle."""
    main = table[table["output"] == table["output"].iloc[-1]]
    top = main[main["mean_abs_shap"] > 0].head(5)
    tied = top[top["rank_high"] > top["rank_low"]]
    if tied.empty:
        return []
    tied_names = names(list(tied["feature"]))
    text = f"Among the first five, ranks are not settled for {tied_names}: the rows cannot tell them from others."
    return [Caveat(code=TIED, section="importance", message=text)]
