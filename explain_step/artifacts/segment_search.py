"""Where the model performs worst: a shallow tree looks on one half of the rows, the other is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import privacy
from explain_step.artifacts import segment_performance as performance
from explain_step.artifacts.metric_influence import ROW_METRICS, row_losses
from explain_step.artifacts.row_order import content_order
from explain_step.artifacts.segment_evaluation import evaluate
from explain_step.artifacts.segment_expressions import parse, quote
from explain_step.artifacts.segment_rules import Partition
from explain_step.artifacts.segment_suppression import withheld
from explain_step.artifacts.segment_table import typed
from explain_step.artifacts.segment_tests import by_chance, shuffled, told
from explain_step.config import Config
from explain_step.intervals import holm
from explain_step.metrics import METRICS, Metric
from explain_step.quantity import quantity
from explain_step.seeds import Seeds
from explain_step.types import Artifact, Attributions, Caveat, FloatArray, IntArray, Subject, Task

DEPTH = 3
RULES = 3
LEAF_SHARE = 0.05
MOST_ROWS = 50_000
"""Rows of each half; the search needs no more."""
ORDINARY = (1e-30, 1e30)
"""Sizes of numbers that single precision holds."""
LEVELS = 10
"""Levels of a text column that the tree may ask for."""
COLUMNS = (
    "rule", "n", "share", "metric", "metric_value", "metric_ci_low", "metric_ci_high", "rest_value",
    "difference", "difference_ci_low", "difference_ci_high", "p_adjusted", "n_search", "search_value",
)  # fmt: skip
TEXT = ("rule", "metric")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    """One derived yes/no or numeric column that the tree may split on; ``scale`` is what numbers were divided by."""

    column: str
    level: str | None
    values: FloatArray
    literal: str = ""
    step: float = 0.0
    scale: float = 1.0


def search_artifact(
    subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds
) -> tuple[Artifact | None, tuple[Caveat, ...]]:
    """Return the artifact ``segment_search`` (None where it makes no sense) and what to say about it."""
    metric = _metric(subject, config=config)
    if metric is None:
        return None, ()
    usable = np.flatnonzero(np.isfinite(_losses(metric, subject)))
    if len(usable) > 2 * MOST_ROWS:
        subject = subject.take(np.sort(np.concatenate(_halves(subject, usable, seeds=seeds))))
        usable = np.arange(len(subject.X))
    losses = _losses(metric, subject)
    smallest = max(config.min_segment, int(np.ceil(LEAF_SHARE * len(usable) / 2)))
    questions = _questions(subject, config=config)
    reason = _why_not(losses[usable], questions, metric, needed=8 * config.min_segment)
    if reason is not None:
        text = f"Weak segments were not searched: {reason}."
        return None, (Caveat(code="no_segment_search", section="segments", message=text),)
    looked, reported = _halves(subject, usable, seeds=seeds)
    rules = _rules(questions, losses, looked, smallest=smallest)
    shown = _publishable(rules, subject, looked, reported, smallest=config.min_segment)
    table = _table(shown, subject, metric, looked=looked, reported=reported, seeds=seeds)
    meta = _meta(
        metric, subject.model.task, looked=looked, reported=reported, smallest=smallest, found=len(rules)
    )
    meta["quantity"] = quantity(subject, attributions)
    return Artifact(name="segment_search", kind="segments", table=table, meta=meta), ()


def _why_not(
    losses: FloatArray, questions: Sequence[_Question], metric: Metric, *, needed: int
) -> str | None:
    """Return why there is nothing to search; None where there is."""
    if len(losses) < needed:
        return f"that needs at least {needed} rows with labels"
    if not questions:
        return "no column of numbers or text that may be shown has more than one value"
    return f"{metric.name} is the same for every row" if np.ptp(losses) <= 0 else None


def _metric(subject: Subject, *, config: Config) -> Metric | None:
    """Return the first configured metric that is a mean over rows, else log loss, accuracy or mae."""
    if subject.y is None:
        return None
    defaults = ("mae",) if subject.model.task == "regression" else ("log_loss", "accuracy")
    known = {m.name: m for m in METRICS if m.name in ROW_METRICS}
    for name in (*config.metrics, *defaults):
        if name in known and row_losses(name, subject) is not None:
            return known[name]
    return None


def _losses(metric: Metric, subject: Subject) -> FloatArray:
    losses = row_losses(metric.name, subject)
    assert losses is not None  # _metric saw to it
    return -losses if metric.direction == "higher" else losses


def _halves(subject: Subject, usable: IntArray, *, seeds: Seeds) -> tuple[IntArray, IntArray]:
    """Split the rows in two by a seeded draw over their content order: the given order does not matter."""
    ordered = usable[np.argsort(content_order(subject.frame, subject.row_ids)[usable], kind="stable")]
    drawn = seeds.rng("segment_search", "halves").permutation(ordered)
    half = len(drawn) // 2
    return np.sort(drawn[:half][:MOST_ROWS]), np.sort(drawn[half:][:MOST_ROWS])


def _questions(subject: Subject, *, config: Config) -> list[_Question]:
    questions: list[_Question] = []
    for name in subject.frame.columns:
        closed = name in privacy.hidden(config) or name == subject.target_name
        if not closed and not any(c in name for c in "`\n\r") and len(name) <= 80:
            questions.extend(_of_column(name, subject.frame[name], config=config))
    return questions


def _of_column(name: str, series: pd.Series[Any], *, config: Config) -> list[_Question]:
    if pd.api.types.is_bool_dtype(series):
        values = series.fillna(False).to_numpy(dtype=np.float64)
        return [_Question(column=name, level="True", values=values, literal="True")]
    if privacy.is_numeric(series):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        known = values[np.isfinite(values)]
        if len(known) == 0 or np.ptp(known) == 0:
            return []
        filled = np.where(np.isfinite(values), values, np.median(known))
        step, scale = _step(known), _scale(known)
        asked = _Question(column=name, level=None, values=filled / scale, step=step, scale=scale)
        return [asked] if step > 0 else []
    if not _is_text(series):
        return []
    cells = privacy.level_names(series)
    levels = [v for v in privacy.publishable_levels(series, config=config)[:LEVELS] if len(v) <= 60]
    return [
        _Question(column=name, level=v, values=(cells == v).astype(np.float64), literal=repr(v))
        for v in levels
    ]


def _scale(known: FloatArray) -> float:
    """Return what brings numbers into the range of single precision, in which the tree compares them."""
    largest = float(np.abs(known).max())
    return 1.0 if ORDINARY[0] <= largest <= ORDINARY[1] else largest


def _step(known: FloatArray) -> float:
    """Return what thresholds are rounded to: 1 for few whole numbers, under half a gap for few others."""
    distinct = np.unique(known)
    if len(distinct) > LEVELS:
        step = privacy.rounding_step(known)
        return step if step > 0 else privacy.rounding_step(known[known != np.median(known)])
    if (distinct == np.floor(distinct)).all():
        return 1.0
    return float(10.0 ** np.floor(np.log10(np.diff(distinct).min() / 2)))


def _is_text(series: pd.Series[Any]) -> bool:
    plain = series.cat.categories if isinstance(series.dtype, pd.CategoricalDtype) else series
    return bool(pd.api.types.infer_dtype(plain, skipna=True) == "string")


# ------------------------------------------------------------------------------------------------------- the
# tree


def _rules(questions: Sequence[_Question], losses: FloatArray, rows: IntArray, *, smallest: int) -> list[str]:
    """Return the rules of the leaves that are worse than average, the worst first."""
    from sklearn.tree import DecisionTreeRegressor

    table = np.stack([q.values[rows] for q in questions], axis=1)
    tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=smallest, random_state=0).fit(
        table, losses[rows]
    )
    inner: Any = tree.tree_
    mean = float(inner.value[0, 0, 0])
    leaves = [
        (float(inner.value[leaf, 0, 0]), path)
        for leaf, path in _paths(inner)
        if path and float(inner.value[leaf, 0, 0]) > mean
    ]
    leaves.sort(key=lambda found: -found[0])
    written = (_written(path, questions) for _, path in leaves)
    return list(dict.fromkeys(written))[:RULES]


def _paths(tree: Any) -> list[tuple[int, list[tuple[int, float, bool]]]]:
    """Return each leaf with its splits (question, threshold, whether at most the threshold)."""
    found, stack = [], [(0, [])]  # type: ignore[var-annotated]
    while stack:
        node, path = stack.pop()
        if tree.children_left[node] < 0:
            found.append((node, path))
            continue
        split = int(tree.feature[node]), float(tree.threshold[node])
        stack.append((int(tree.children_right[node]), [*path, (*split, False)]))
        stack.append((int(tree.children_left[node]), [*path, (*split, True)]))
    return found


def _written(path: Sequence[tuple[int, float, bool]], questions: Sequence[_Question]) -> str:
    """Return a path as an expression that can be declared as a segment; thresholds are round numbers."""
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    text: list[str] = []
    order: dict[int, None] = {}
    for index, threshold, below in path:
        question = questions[index]
        if question.level is not None:
            text.append(f"{quote(question.column)} {'!=' if below else '=='} {question.literal}")
            continue
        order[index] = None
        # halves go up, so that a threshold between two whole numbers is the upper one
        edge = float(
            privacy.round_to(
                np.floor(threshold * question.scale / question.step + 0.5) * question.step, step=question.step
            )
        )
        if below:
            high[index] = min(edge, high.get(index, np.inf))
        else:
            low[index] = max(edge, low.get(index, -np.inf))
    text.extend(_bounds(quote(questions[i].column), low.get(i), high.get(i)) for i in order)
    return " and ".join(dict.fromkeys(text))


def _bounds(name: str, low: float | None, high: float | None) -> str:
    left = f"{privacy.render(low)} <= " if low is not None and high is not None else ""
    if high is None and low is not None:
        return f"{name} >= {privacy.render(low)}"
    return f"{left}{name} < {privacy.render(high)}"


# ----------------------------------------------------------------------------------------------------- the
# report


def _publishable(
    rules: Sequence[str], subject: Subject, looked: IntArray, reported: IntArray, *, smallest: int
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Keep rules that hold enough rows in both halves and leave enough outside."""
    columns = list(subject.frame.columns)
    masks = [(rule, evaluate(parse(rule, columns), subject.frame)) for rule in rules]
    masks = [(rule, m) for rule, m in masks if min(m[looked].sum(), m[reported].sum()) >= smallest]
    cuts = [
        Partition(
            name=rule,
            levels=("yes", "no"),
            codes=np.where(m, 0, 1).astype(np.int64),
            origin="found",
            columns=frozenset(),
        )
        for rule, m in masks
    ]
    hidden = withheld(cuts, smallest=smallest, rows=reported)
    return [found for found, gone in zip(masks, hidden, strict=True) if not gone[0]]


def _table(
    shown: Sequence[tuple[str, npt.NDArray[np.bool_]]],
    subject: Subject,
    metric: Metric,
    *,
    looked: IntArray,
    reported: IntArray,
    seeds: Seeds,
) -> pd.DataFrame:
    records: list[dict[str, Any]] = []
    made = shuffled(metric, subject.take(reported), rng=seeds.rng("segment_search", "by chance"))
    for rule, mask in shown:
        rng = seeds.rng("segment_search", rule)
        inside = performance.draws(metric, subject, reported[mask[reported]], rng=rng)
        rest = performance.draws(metric, subject, reported[~mask[reported]], rng=rng)
        own = performance.interval(inside)
        gap = None if made is None else by_chance(made, mask[reported])
        gap = performance.difference(inside, rest) if gap is None else gap
        records.append(
            {
                "rule": rule,
                "n": int(mask[reported].sum()),
                "share": float(mask[reported].mean()),
                "metric": metric.name,
                "metric_value": own.value,
                "metric_ci_low": own.low,
                "metric_ci_high": own.high,
                "rest_value": rest.value,
                "difference": gap.value,
                "difference_ci_low": gap.low,
                "difference_ci_high": gap.high,
                "p_adjusted": gap.p,
                "n_search": int(mask[looked].sum()),
                "search_value": performance.value_on(metric, subject.take(looked[mask[looked]])),
            }
        )
    table = typed(records, COLUMNS, text=TEXT)
    table["p_adjusted"] = holm(table["p_adjusted"].to_numpy(dtype=np.float64))
    return table


def _meta(
    metric: Metric, task: Task, *, looked: IntArray, reported: IntArray, smallest: int, found: int
) -> dict[str, Any]:
    return {
        "method": (
            f"a regression tree of depth {DEPTH} (at least {smallest} rows per leaf) on each row's "
            "contribution to "
            f"{metric.name} was grown on {len(looked)} rows; its worst leaves, cut at round numbers, are "
            "reported on "
            f"{len(reported)} other rows"
        ),
        "metric": metric.name,
        "metric_direction": metric.direction,
        "interval": (
            "95%, on the rows the search did not see: percentile bootstrap for the metric, for means over rows "
            "studentised, for accuracy Wilson, for areas of few rows of a class Newcombe; its "
            f"difference to the rest: {told(metric, task)}"
        ),
        "p_adjusted": "Holm over the reported rules; the search itself used other rows and is not counted",
        "rules_found": found,
        "search_rows": len(looked),
        "report_rows": len(reported),
    }
