"""How the prediction depends on each top feature: SHAP dependence, partial dependence with ICE lines, ALE."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from explain_step import privacy
from explain_step.artifacts import columns, effect_checks, effect_tables, effects, predicting, text_columns
from explain_step.artifacts.effect_tables import Effect, Rows
from explain_step.artifacts.importance import ranking
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import masking
from explain_step.explainers.lending import Lending
from explain_step.quantity import quantity
from explain_step.seeds import Seeds
from explain_step.types import Artifact, Attributions, Caveat, FloatArray, IntArray, Section, Subject

PDP_ROWS = 500
ALE_ROWS = 2_000
SMALLEST_BIN = 10
RARE = 0.2
"""Levels say little about a column where those that are shown hold less than this part of the rows."""
FEWEST_REFERENCE, FEWEST_LOCAL = 50, 100
"""A slow model is asked about fewer rows than these constants allow, down to so many."""
MORE_COLUMNS = ("level", "line", "x_low", "x_high")
INTERVAL = (
    "95%, each point for itself. shap: mean of the attributions of the explained rows in a bin (studentised "
    "bootstrap; Student above 500 rows). pdp: mean over reference rows (studentised bootstrap), so it "
    "covers the "
    "level as well as the shape. ale: percentile bootstrap over explained rows, 399 resamples. All with "
    "this fitted "
    "model fixed."
)


def build(subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds) -> Section:
    """Return ``dependence`` and, with standard privacy, ``dependence_points``.

    Table ``dependence`` has, beside the columns of the contract, ``level`` (name of a level; ``x`` is then
    its position), ``line`` (number of an ICE line), ``x_low`` and ``x_high`` (ends of a bin). ``curve`` is
    ``shap``, ``pdp``, ``ale``, ``ice`` or ``density`` (rows per bin of equal width, no value). Missing
    values are the level ``(missing)``, off the curve. PDP and ICE are in the explained output space, SHAP
    and ALE are centred.

    Raises
    ------
    NotApplicable
        There are fewer than two rows, or no top feature has a curve that may be published.
    """
    if len(attributions.rows) < 2:
        msg = f"dependence needs at least 2 explained rows, there are {len(attributions.rows)}"
        raise NotApplicable(msg)
    rows = _rows(subject, attributions, config=config, seeds=seeds)
    order = ranking(attributions, weights=rows.explained.weights)
    chosen, excluded = _choose(rows, order)
    done: dict[str, Effect] = {}
    watch = predicting.Stopwatch(config.budget)
    questions = {feature: _question(rows, feature) for feature in chosen}
    known = _from_trees(rows, questions)
    shortened = False
    if known is None:
        rows, shortened = _in_time(rows, features=len(chosen))
        questions = {feature: _question(rows, feature) for feature in chosen} if shortened else questions
    # answers of trees are there: the budget is for asking, and compiling their kernels may have used it up
    for feature in chosen if known is not None else watch.in_time(chosen, least=1):
        question = questions[feature]
        answers = known[feature] if known is not None else _asked(rows, question)
        done[feature] = _effect(rows, feature, question, answers)
    late = [feature for feature in chosen if feature not in done]
    excluded |= dict.fromkeys(late, f"{config.budget:.3g} s of the budget were not enough")
    done = {feature: done[feature] for feature in chosen if feature in done}
    if not done:
        msg = "no top feature has a curve: " + "; ".join(f"{f}: {r}" for f, r in list(excluded.items())[:5])
        raise NotApplicable(msg)
    artifacts, caveats = _assemble(rows, done, excluded=excluded)
    caveats += effect_checks.cut_short(
        len(done), of=len(chosen), seconds=config.budget, reference=len(rows.reference) if shortened else None
    )
    caveats += effect_checks.sparse(rows.near, list(done), config=config)
    return Section(artifacts=tuple(artifacts), caveats=caveats)


def _rows(subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds) -> Rows:
    explained = subject.take(attributions.rows)
    n, m = len(explained.X), len(subject.background)
    rng = seeds.rng("dependence", "rows")
    kept = np.sort(rng.choice(m, PDP_ROWS, replace=False)) if m > PDP_ROWS else np.arange(m)
    local = np.sort(rng.choice(n, ALE_ROWS, replace=False)) if n > ALE_ROWS else np.arange(n)
    return Rows(
        explained=explained,
        near=explained.X.iloc[local].reset_index(drop=True),
        attributions=attributions,
        reference=subject.background.iloc[kept].reset_index(drop=True),
        local=local.astype(np.int64),
        config=config,
        seeds=seeds,
    )


def _in_time(rows: Rows, *, features: int) -> tuple[Rows, bool]:
    """Return the rows, fewer of them where the budget does not reach for all features, and whether it does not."""
    size, local = len(rows.reference), len(rows.local)
    whole = max(features, 1) * (columns.POINTS * size + 2 * local)
    model, budget = rows.explained.model, rows.config.budget
    fits = masking.affordable(model, rows.reference, rows=whole, seconds=budget)
    if fits >= whole:
        return rows, False
    rng, part = rows.seeds.rng("dependence", "fewer"), fits / whole
    kept = rng.choice(size, min(size, max(int(part * size), FEWEST_REFERENCE)), replace=False)
    near = np.sort(rng.choice(local, min(local, max(int(part * local), FEWEST_LOCAL)), replace=False))
    fewer = replace(
        rows,
        reference=rows.reference.iloc[np.sort(kept)].reset_index(drop=True),
        local=rows.local[near],
        near=rows.near.iloc[near].reset_index(drop=True),
    )
    return fewer, True


def _choose(rows: Rows, order: IntArray) -> tuple[list[str], dict[str, str]]:
    """Return the top features that can be shown, and why others among them are not."""
    chosen: list[str] = []
    excluded: dict[str, str] = {}
    for j in order:
        if len(chosen) + len(excluded) >= rows.config.top_features:
            break
        feature = rows.attributions.feature_names[int(j)]
        reason = _why_not(rows, feature)
        if reason is None:
            chosen.append(feature)
        else:
            excluded[feature] = reason
    return chosen, excluded


def _why_not(rows: Rows, feature: str) -> str | None:
    if feature in privacy.hidden(rows.config):
        return "its values are redacted"
    series = rows.explained.X[feature]
    if columns.kind(series) != "levels":
        few = len(columns.grid(series, config=rows.config)) < 2
        return "it has fewer than two values that can be shown" if few else None
    if _lengths(rows, feature) is not None:
        return None
    found = columns.levels(series, config=rows.config)
    if len(found.names) < 2 or not any(_shown(found)):
        return "it has fewer than two levels that can be shown"
    hardly = len(series) > 50 and sum(_shown(found)) < RARE * len(series)
    return "almost every row has a level of its own (an identifier?)" if hardly else None


def _shown(found: columns.Levels) -> list[int]:
    """Return the number of rows of each level that is shown under its name."""
    held = np.bincount(found.codes[found.codes >= 0], minlength=len(found.names)).tolist()
    return [n for n, sample in zip(held, found.samples, strict=True) if sample is not None]


def _lengths(rows: Rows, feature: str) -> tuple[columns.Levels, text_columns.Unit] | None:
    """Return a text column cut by length, where its texts hardly repeat."""
    series = rows.explained.X[feature]
    if columns.kind(series) != "levels":
        return None
    shown = _shown(columns.levels(series, config=rows.config))
    n = len(series)
    spread = n > columns.MAX_LEVELS and (
        sum(shown) < RARE * n or series.nunique() > max(n / 2, columns.MAX_LEVELS)
    )
    return text_columns.by_length(series, config=rows.config) if spread else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What the model is asked about for one feature.

    Attributes
    ----------
    x : ndarray of shape (g,)
        The points of partial dependence; of levels their positions.
    settings : Lending
        The reference rows with each of the g values; None for text by length.
    steps : Steps
        None where accumulated local effects are not defined.
    """

    x: FloatArray
    settings: Lending | None = None
    steps: effects.Steps | None = None

    def lendings(self) -> list[Lending]:
        """Return everything that is asked about, in order."""
        steps = [] if self.steps is None else [self.steps.asked]
        return steps if self.settings is None else [self.settings, *steps]


def _question(rows: Rows, feature: str) -> Question:
    if _lengths(rows, feature) is not None:
        return Question(x=np.zeros(0))
    series, config = rows.explained.X[feature], rows.config
    if columns.kind(series) != "levels":
        x = columns.grid(series, config=config)
        values = columns.cast(x, series)
        steps = effects.local_steps(rows.near, feature, edges=x, weights=rows.local_weights)
    else:
        found = columns.levels(series, config=config)
        known = [i for i, sample in enumerate(found.samples) if sample is not None]
        x = np.array(known, dtype=np.float64)
        values = columns.listed(series, [found.samples[i] for i in known])
        both = len(known) == len(found.names) == 2
        steps = _steps_of_levels(rows, feature, found=found, values=values) if both else None
    settings = effects.settings(rows.reference, feature, values=values)
    return Question(x=x, settings=settings, steps=steps)


def _from_trees(rows: Rows, questions: dict[str, Question]) -> dict[str, list[FloatArray]] | None:
    """Return each feature's answers from the model's trees; None where the model has to be asked."""
    asked = [one for question in questions.values() for one in question.lendings()]
    found = predicting.from_trees(rows.explained.model, asked)
    if found is None:
        return None
    answers = iter(found)
    return {f: [next(answers).output for _ in question.lendings()] for f, question in questions.items()}


def _asked(rows: Rows, question: Question) -> list[FloatArray]:
    """Return the model's own answers, asked for in one call."""
    return predicting.predict_all(rows.explained.model, (one.frame() for one in question.lendings()))


def _effect(rows: Rows, feature: str, question: Question, answers: list[FloatArray]) -> Effect:
    lengths = _lengths(rows, feature)
    if lengths is not None:
        return _of_text(rows, feature, found=lengths[0], unit=lengths[1])
    of = _of_levels if columns.kind(rows.explained.X[feature]) == "levels" else _of_numbers
    return of(rows, feature, question, answers)


def _of_text(rows: Rows, feature: str, *, found: columns.Levels, unit: text_columns.Unit) -> Effect:
    """Return the mean attribution of texts by their length: no text can be set to a length, so nothing else."""
    rng, phi = rows.seeds.rng("dependence", feature), effect_tables.contributions(rows, feature)
    names = np.array(found.names, dtype=object)
    curve = effects.group_means(phi, found.codes, groups=len(names), weights=rows.explained.weights, rng=rng)
    meta = {
        "kind": "levels",
        "discrete": True,
        "ordered": True,
        "by": f"number of {unit}",
        "curves": "free text: shown by its length, which is one thing about it among many; partial dependence and ALE are "
        "not defined, because a text cannot be set to a length",
    }
    table = effect_tables.frame(rows, feature, "shap", curve, extra={"level": names})
    return Effect(table=table, points=None, meta=meta, caveats=())


def _of_numbers(rows: Rows, feature: str, question: Question, answers: list[FloatArray]) -> Effect:
    series, grid = rows.explained.X[feature], question.x
    values = columns.numbers(series)
    discrete = len(np.unique(values[~np.isnan(values)])) <= columns.POINTS
    rng = rows.seeds.rng("dependence", feature)
    curve, ends = _shap_by_value(rows, feature, values=values, grid=grid, discrete=discrete, rng=rng)
    pdp, lines = effects.partial_dependence(answers[0], points=len(grid), rng=rng)
    near = effects.nearest(values, grid)
    count = np.bincount(near[near >= 0], minlength=len(grid)).astype(np.float64)
    steps = question.steps
    ale = None if steps is None else effects.accumulated_local_effects(steps, answers[1], rng=rng)
    parts = [
        effect_tables.frame(rows, feature, "shap", curve, extra={"x_low": ends[0], "x_high": ends[1]}),
        effect_tables.frame(rows, feature, "pdp", pdp, x=grid, count=count),
        *([] if ale is None else [effect_tables.frame(rows, feature, "ale", ale)]),
        effect_tables.ice(rows, feature, lines, x=grid, rng=rng),
        effect_tables.missing(rows, feature, rng=rng),
        effect_tables.density(rows, feature, values=values, grid=grid),
    ]
    meta = {"kind": columns.kind(series), "discrete": discrete, "ordered": True}
    return Effect(
        table=pd.concat([p for p in parts if len(p)], ignore_index=True),
        points=effect_tables.points(rows, feature, values=values),
        meta=meta,
        caveats=()
        if ale is None
        else effect_checks.disagreement(rows.explained, feature, pdp=pdp, ale=ale, count=count),
    )


def _shap_by_value(
    rows: Rows,
    feature: str,
    *,
    values: FloatArray,
    grid: FloatArray,
    discrete: bool,
    rng: np.random.Generator,
) -> tuple[effects.Curve, tuple[FloatArray, FloatArray]]:
    """Return the mean attribution per value (few values) or per bin of the grid, and the ends of the bins."""
    phi = effect_tables.contributions(rows, feature)
    weights = rows.explained.weights
    strict = privacy.is_strict(rows.config)
    if discrete:
        codes = effects.nearest(values, grid)
        curve = effects.group_means(phi, codes, groups=len(grid), weights=weights, rng=rng)
        return _placed(curve, grid), (grid, grid)
    smallest = max(SMALLEST_BIN, rows.config.min_segment if strict else 0)
    codes, ends = effects.bin_codes(values, grid, smallest=smallest)
    low, high = grid[ends[:-1]], grid[ends[1:]]
    curve = effects.group_means(phi, codes, groups=len(low), weights=weights, rng=rng)
    known = codes >= 0
    mean = np.bincount(codes[known], weights=values[known], minlength=len(low)) / np.maximum(curve.count, 1)
    return _placed(curve, (low + high) / 2 if strict else mean), (low, high)


def _placed(curve: effects.Curve, x: FloatArray) -> effects.Curve:
    return replace(curve, x=x)


def _of_levels(rows: Rows, feature: str, question: Question, answers: list[FloatArray]) -> Effect:
    series = rows.explained.X[feature]
    found = columns.levels(series, config=rows.config)
    rng = rows.seeds.rng("dependence", feature)
    curve = effects.group_means(
        effect_tables.contributions(rows, feature),
        found.codes,
        groups=len(found.names),
        weights=rows.explained.weights,
        rng=rng,
    )
    names = np.array(found.names, dtype=object)
    x, known, steps = question.x, question.x.astype(np.int64), question.steps
    pdp, lines = effects.partial_dependence(answers[0], points=len(x), rng=rng)
    parts = [
        effect_tables.frame(rows, feature, "shap", curve, extra={"level": names}),
        effect_tables.frame(
            rows, feature, "pdp", pdp, x=x, count=curve.count[known], extra={"level": names[known]}
        ),
        effect_tables.ice(rows, feature, lines, x=x, rng=rng, level=names[known]),
    ]
    if steps is not None:
        ale = effects.accumulated_local_effects(steps, answers[1], rng=rng)
        parts.append(
            effect_tables.frame(rows, feature, "ale", ale, count=curve.count, extra={"level": names})
        )
    meta = {"kind": "levels", "discrete": True, "ordered": found.ordered}
    if len(found.names) > 2:
        meta["ale"] = "not defined: accumulated local effects need an order of the levels"
    table = pd.concat([p for p in parts if len(p)], ignore_index=True)
    return Effect(table=table, points=None, meta=meta, caveats=())


def _steps_of_levels(rows: Rows, feature: str, *, found: columns.Levels, values: Any) -> effects.Steps:
    return effects.level_steps(
        rows.near,
        feature,
        values=values,
        codes=found.codes[rows.local],
        weights=rows.local_weights,
    )


def _assemble(
    rows: Rows, done: dict[str, Effect], *, excluded: dict[str, str]
) -> tuple[list[Artifact], tuple[Caveat, ...]]:
    table = pd.concat([e.table for e in done.values()], ignore_index=True)
    contract = ["output", "feature", "curve", "x", "value", "ci_low", "ci_high", "count"]
    meta = {
        "quantity": quantity(rows.explained, rows.attributions),
        "interval": INTERVAL,
        "method": f"SHAP means over {len(rows.attributions.rows)} explained rows in quantile bins; PDP and "
        "ICE over "
        f"{len(rows.reference)} background rows; ALE over {len(rows.local)} explained rows",
        "weights": "SHAP means and ALE use the sample weights; background rows count alike"
        if rows.explained.weights is not None
        else "none were given",
        "features": {feature: effect.meta for feature, effect in done.items()},
        "excluded": excluded,
    }
    artifacts = [
        Artifact(
            name="dependence",
            kind="dependence",
            table=table.reindex(columns=[*contract, *MORE_COLUMNS]),
            meta=meta,
        )
    ]
    points = [e.points for e in done.values() if e.points is not None]
    if points:
        extra = {
            "method": f"a seeded sample of at most {effect_tables.POINTS} explained rows per feature",
            "interval": "none",
        }
        artifacts.append(
            Artifact(
                name="dependence_points",
                kind="dependence",
                table=pd.concat(points, ignore_index=True),
                meta={"quantity": meta["quantity"], **extra},
            )
        )
    caveats = tuple(c for e in done.values() for c in e.caveats)
    if excluded:
        text = "No dependence curve: " + "; ".join(f"{f!r}, {reason}" for f, reason in excluded.items()) + "."
        caveats += (Caveat(code="no_dependence_curve", section="dependence", message=text),)
    return artifacts, caveats
