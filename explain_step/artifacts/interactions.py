"""The strongest interactions of the top features: how far two columns' joint effect is from their sum.

For tree ensembles that are explained exactly, the exact Shapley interaction; for other models, the departure of partial
dependences from additivity, estimated. The table's meta says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import intervals, privacy
from explain_step.artifacts import columns, predicting
from explain_step.artifacts.importance import ranking
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import masking, tree_interactions
from explain_step.explainers.lending import edited
from explain_step.explainers.tree import METHOD as TREE_METHOD
from explain_step.quantity import quantity
from explain_step.seeds import Seeds
from explain_step.types import (
    Artifact,
    Attributions,
    Caveat,
    FloatArray,
    Section,
    Subject,
)

FEATURES, EXACT_FEATURES = 8, 20
ROWS, EXACT_ROWS = 300, 1000
CONTEXTS = 8
FEWEST = 20
"""A slow model is asked about fewer rows than `ROWS`, down to this many."""
FEWEST_FEATURES = 3
ROUNDING = 1e-6
"""Departures below this share of the largest output are the rounding of single-precision models."""
EXACT_METHOD = (
    "strength is the root mean square over explained rows of the two columns' Shapley interaction (Grabisch and Roubens "
    "1999, doi:10.1007/s001820050125): what both together add beyond the sum of what each adds alone, averaged over the "
    "coalitions of the other columns; exact for the trees, every explained row against every background row; half of "
    "it is an entry off the diagonal of shap's matrix; share is the mean square over the variance of the explained output"
)
EXACT_INTERVAL = (
    "95% studentised bootstrap over explained rows of the mean square, then its root (0 where the bound is negative); "
    "covers which explained rows were drawn, not which background rows; each pair for itself"
)
SURFACE_ROWS = 200
SURFACE_POINTS = 11
SURFACE_LINES = 4
SHARED = 0.1
"""A value that this share of the rows has is a point of the surface."""
METHOD = (
    "strength is the root mean square over explained rows of the departure from additivity PD_ab - PD_a - "
    "PD_b + PD "
    "(numerator of Friedman and Popescu's H, 2008, doi:10.1214/07-AOAS148) under the declared background, "
    "estimated "
    f"from {CONTEXTS} independent background rows per explained row by products of different ones, so that "
    "noise "
    "does not add to it; share is its square over the variance of the explained output"
)
INTERVAL = (
    "95% studentised bootstrap over explained rows of the mean square, then its root (0 where the bound is "
    "negative); covers which explained and background rows were drawn; each pair for itself"
)


ALONE = Caveat(
    code="one_column",
    section="dependence",
    message="The model reads one column, so there are no interactions.",
)


def build(subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds) -> Section:
    """Return ``interactions`` (every pair of the top features, strongest first) and ``interaction_surface``.

    A model of one column has none; that is said, and is no lack.

    Raises
    ------
    NotApplicable
        There are fewer than two rows, ``config.top_features`` is one, or the budget does not reach for two background
        rows per row.
    """
    explained = subject.take(attributions.rows)
    order = [int(j) for j in ranking(attributions, weights=explained.weights)]
    if len(order) == 1:
        return Section(artifacts=(), caveats=(ALONE,))
    if min(len(order), config.top_features, len(explained.X)) < 2:
        msg = "interactions need at least two features and two explained rows"
        raise NotApplicable(msg)
    rng = seeds.rng("interactions")
    top = order[: config.top_features]
    found = _exact(explained, attributions, top[:EXACT_FEATURES], rng=seeds.rng("interactions", "exact"))
    if found is None:
        found = _estimated(explained, top[:FEATURES], config=config, seeds=seeds, rng=rng)
    table = _table(found, explained=explained, rng=rng)
    n = len(found.sample.X)
    meta = {"quantity": quantity(subject, attributions), "rows": n, "contexts": found.contexts}
    more = {
        "method": found.method,
        "interval": found.interval,
        "features": [_name(subject, j) for j in found.top],
        "exact": found.method == EXACT_METHOD,
    }
    main = Artifact(name="interactions", kind="dependence", table=table, meta=meta | more)
    surface = _surface(explained, table, config=config, seeds=seeds, meta=meta)
    return Section(artifacts=(main, *surface), caveats=found.caveats)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """Squares of the interactions of pairs of the top columns, of shape (pairs, n, k), and what they are."""

    square: FloatArray
    top: list[int]
    sample: Subject
    contexts: int
    method: str
    interval: str
    caveats: tuple[Caveat, ...] = ()


def _exact(
    explained: Subject, attributions: Attributions, top: list[int], *, rng: np.random.Generator
) -> _Found | None:
    """Return the exact interactions of a tree ensemble; None where there are none."""
    if attributions.method.name != TREE_METHOD:
        return None
    n = len(explained.X)
    rows = np.sort(rng.choice(n, EXACT_ROWS, replace=False)) if n > EXACT_ROWS else np.arange(n)
    sample = explained.take(rows.astype(np.int64))
    try:
        values = tree_interactions.of_pairs(sample, list(combinations(top, 2)))
    except NotApplicable:
        return None
    return _Found(
        square=values**2, top=top, sample=sample, contexts=len(sample.background),
        method=EXACT_METHOD, interval=EXACT_INTERVAL,
    )  # fmt: skip


def _estimated(
    explained: Subject, planned: list[int], *, config: Config, seeds: Seeds, rng: np.random.Generator
) -> _Found:
    """Return the squared departures of partial dependences from additivity, estimated from a few background rows."""
    n = len(explained.X)
    all_rows = np.sort(rng.choice(n, ROWS, replace=False)) if n > ROWS else np.arange(n)
    watch = predicting.Stopwatch(config.budget)
    rows, top = _in_time(explained, all_rows, planned, config=config, seeds=seeds)
    sample = explained.take(rows.astype(np.int64))
    departures = _departures(sample, top, rng=rng, watch=watch)
    c, stacked = len(departures), np.stack(departures)
    # mean of products of two different contexts: unbiased for the squared departure, zero where there is none
    square = (stacked.sum(axis=0) ** 2 - (stacked**2).sum(axis=0)) / (c * (c - 1))
    text = (
        f"Interactions of {len(top)} of {len(planned)} leading features rest on {len(rows)} of {len(all_rows)} rows and "
        f"{c} of {CONTEXTS} background rows each: {config.budget:.3g} s of the budget were not enough."
    )
    caveat = Caveat(code="interaction_budget", section="dependence", message=text, degrades=True)
    short = c < CONTEXTS or len(rows) < len(all_rows) or len(top) < len(planned)
    return _Found(
        square=square, top=top, sample=sample, contexts=c, method=METHOD, interval=INTERVAL,
        caveats=(caveat,) if short else (),
    )  # fmt: skip


def _in_time(
    explained: Subject, rows: npt.NDArray[np.intp], top: list[int], *, config: Config, seeds: Seeds
) -> tuple[npt.NDArray[np.intp], list[int]]:
    """Return the rows and features: fewer rows, then fewer features, where the budget does not reach for all."""
    whole = CONTEXTS * _sets(len(top)) * len(rows)
    fits = masking.affordable(explained.model, explained.X, rows=whole, seconds=config.budget)
    if fits >= whole:
        return rows, top
    size = min(len(rows), max(fits // (CONTEXTS * _sets(len(top))), FEWEST))
    features = len(top)
    while features > FEWEST_FEATURES and 2 * _sets(features) * size > fits:
        features -= 1
    return np.sort(seeds.rng("interactions", "fewer").choice(rows, size, replace=False)), top[:features]


def _sets(features: int) -> int:
    """Return how many rows are predicted for one row and one context: nothing, each feature, each pair."""
    return 1 + features + features * (features - 1) // 2


def _name(subject: Subject, position: int) -> str:
    return subject.model.feature_names[position]


def _departures(
    sample: Subject, top: list[int], *, rng: np.random.Generator, watch: predicting.Stopwatch
) -> list[FloatArray]:
    """Return for each context the departure of every pair: arrays (pairs, n, k).

    One context gives every explained row an own background row b. The departure of a pair is
    f(x_a, x_b; b) - f(x_a; b) - f(x_b; b) + f(b), whose mean over b is the departure of the partial
    dependences.
    """
    names = [_name(sample, j) for j in top]
    pairs = list(combinations(range(len(top)), 2))
    floor = ROUNDING * float(np.abs(sample.response.output).max(initial=0.0))
    out: list[FloatArray] = []
    for _ in range(CONTEXTS):
        if len(out) >= 2 and watch.spent(done=len(out)):
            break
        base = sample.background.iloc[rng.integers(0, len(sample.background), len(sample.X))].reset_index(
            drop=True
        )
        sets = [(), *((a,) for a in range(len(top))), *pairs]
        frames = (edited(base, {names[i]: sample.X[names[i]].array for i in s}) for s in sets)
        answers = dict(zip(sets, predicting.predict_all(sample.model, frames), strict=True))
        found = np.stack([answers[a, b] - answers[(a,)] - answers[(b,)] + answers[()] for a, b in pairs])
        out.append(np.where(np.abs(found) <= floor, 0.0, found))
    return out


def _table(found: _Found, *, explained: Subject, rng: np.random.Generator) -> pd.DataFrame:
    square, top, sample = found.square, found.top, found.sample
    pairs, n, k = square.shape
    flat = square.transpose(1, 0, 2).reshape(n, pairs * k)
    mean, low, high = (
        v.reshape(pairs, k) for v in intervals.mean_interval(flat, rng=rng, weights=sample.weights)
    )
    centre = np.average(explained.response.output, axis=0, weights=explained.weights)
    variance = np.average((explained.response.output - centre) ** 2, axis=0, weights=explained.weights)
    names = [_name(explained, j) for j in top]
    parts = []
    for output, label in enumerate(explained.model.output_names):
        part = pd.DataFrame(
            [
                {"output": label, "feature_a": names[a], "feature_b": names[b]}
                for a, b in combinations(range(len(top)), 2)
            ]
        )
        for column, values in (("strength", mean), ("ci_low", low), ("ci_high", high)):
            part[column] = np.sqrt(np.maximum(values[:, output], 0.0))
        spread = float(variance[output])
        part["share"] = np.maximum(mean[:, output], 0.0) / spread if spread > 0 else np.nan
        part["n"] = float(n)
        parts.append(part.sort_values(["strength", "ci_high"], ascending=False, kind="stable"))
    return pd.concat(parts, ignore_index=True)


def _surface(
    explained: Subject, table: pd.DataFrame, *, config: Config, seeds: Seeds, meta: dict[str, Any]
) -> tuple[Artifact, ...]:
    """Return the joint partial dependence of the strongest pair of each output that is above zero."""
    hidden = privacy.hidden(config)
    parts = []
    for output in explained.model.output_names:
        mine = table[(table["output"] == output) & (table["ci_low"] > 0)]
        shown = [r for r in mine.itertuples() if not {r.feature_a, r.feature_b} & hidden]
        if shown:
            pair = (str(shown[0].feature_a), str(shown[0].feature_b))
            parts.append(_joint(explained, pair, output=output, config=config, seeds=seeds))
    parts = [p for p in parts if p is not None]
    if not parts:
        return ()
    extra: dict[str, Any] = {
        "method": f"mean prediction of up to {SURFACE_ROWS} background rows with both columns set; one line "
        "per value "
        "of feature_b",
        "interval": "95% studentised bootstrap over those background rows of the mean, each point for itself",
    }
    table = pd.concat(parts, ignore_index=True)
    named = dict.fromkeys([*table["feature_a"], *table["feature_b"]])
    # positions of dates are days since 1970
    dates = [name for name in named if columns.kind(explained.X[name]) == "datetime"]
    extra |= {"dates": dates} if dates else {}
    return (Artifact(name="interaction_surface", kind="dependence", table=table, meta=meta | extra),)


def _joint(
    explained: Subject, pair: tuple[str, str], *, output: str, config: Config, seeds: Seeds
) -> pd.DataFrame | None:
    rng = seeds.rng("interactions", "surface", output)
    background = explained.background
    m = min(SURFACE_ROWS, len(background))
    base = background.iloc[np.sort(rng.choice(len(background), m, replace=False))].reset_index(drop=True)
    along, lines = pair
    if columns.kind(explained.X[along]) == "levels" and columns.kind(explained.X[lines]) != "levels":
        along, lines = lines, along
    first = _settings(explained.X[along], m, points=SURFACE_POINTS, config=config)
    second = _settings(explained.X[lines], m, points=SURFACE_LINES, config=config)
    if len(first) < 2 or len(second) < 2:
        return None
    frames = (edited(base, {along: a[2], lines: b[2]}) for b in second for a in first)
    k = explained.model.output_names.index(output)
    answers = np.stack([v[:, k] for v in predicting.predict_all(explained.model, frames)], axis=1)
    mean, low, high = intervals.mean_interval(answers, rng=rng, resamples=199)
    cells = [(a, b) for b in second for a in first]
    return pd.DataFrame(
        {
            "output": output,
            "feature_a": along,
            "feature_b": lines,
            "x_a": [a[0] for a, _ in cells],
            "level_a": [a[1] for a, _ in cells],
            "x_b": [b[0] for _, b in cells],
            "level_b": [b[1] for _, b in cells],
            "value": mean,
            "ci_low": low,
            "ci_high": high,
        }
    )


def _settings(
    series: pd.Series[Any], m: int, *, points: int, config: Config
) -> list[tuple[float, str | None, Any]]:
    """Return (position, level, array of m equal values) for inner quantiles or first levels of a column.

    A value that many rows share, such as the zero of an amount, is always among them.
    """
    if columns.kind(series) == "levels":
        found = columns.levels(series, config=config)
        named = [(n, s) for n, s in zip(found.names, found.samples, strict=True) if s is not None][:points]
        return [(float(i), n, columns.listed(series, [s] * m)) for i, (n, s) in enumerate(named)]
    grid = columns.grid(series, config=config)
    if len(grid) > points:
        inner = np.quantile(grid, np.linspace(0.1, 0.9, points))
        values = columns.numbers(series)
        shared = grid[np.array([(values == x).mean() >= SHARED for x in grid])]
        grid = np.union1d(shared, grid[np.abs(grid[None, :] - inner[:, None]).argmin(axis=1)])
    return [(float(x), None, columns.cast(np.full(m, x), series)) for x in grid]
