"""What is said about one level of one partition: performance, importance, and the differences to the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from explain_step.artifacts import segment_performance as performance
from explain_step.artifacts.segment_rules import Partition
from explain_step.artifacts.segment_statistics import Difference, Estimate, moments, welch
from explain_step.artifacts.segment_suppression import withheld
from explain_step.artifacts.segment_tests import (
    Shuffled,
    by_chance,
    is_small,
    orders_of,
    shuffled,
    shuffled_values,
)
from explain_step.config import Config
from explain_step.intervals import mean_interval
from explain_step.metrics import Metric, choose_metrics
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FloatArray, IntArray, Subject

SECTION = "segments"
RESAMPLES = 499


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The absolute attributions that are reported: rows explained x (output, feature) pairs."""

    values: FloatArray
    pairs: tuple[tuple[str, str], ...]
    weights: FloatArray | None
    rows: IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One level of one partition with everything that is said about it."""

    partition: Partition
    level: int
    n: int
    n_explained: int
    withheld: str | None
    hides_importance: bool
    metric: Estimate
    metric_gap: Estimate
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    gap: Difference | None
    family: tuple[str, int]


def view_of(subject: Subject, attributions: Attributions, *, config: Config) -> View:
    """Return the absolute attributions of the leading features of each output."""
    strength = np.abs(attributions.values)
    weights = None if subject.weights is None else subject.weights[attributions.rows]
    mean = np.average(strength, axis=0, weights=weights)
    names = attributions.feature_names
    pairs = [
        (j, k)
        for k in range(mean.shape[1])
        for j in sorted(range(len(names)), key=lambda j: (-mean[j, k], names[j]))[: config.top_features]
    ]
    return View(
        values=np.stack([strength[:, j, k] for j, k in pairs], axis=1),
        pairs=tuple((attributions.output_names[k], names[j]) for j, k in pairs),
        weights=weights,
        rows=attributions.rows,
    )


def cells_of(
    partitions: Sequence[Partition],
    subject: Subject,
    view: View,
    *,
    config: Config,
    seeds: Seeds,
) -> list[Cell]:
    """Return every level of every partition, the withheld ones without numbers."""
    gone = withheld(partitions, smallest=config.min_segment)
    thin = withheld(partitions, smallest=config.min_segment, rows=view.rows)
    metric = metric_of(subject, config=config)
    made = None if metric is None else shuffled(metric, subject, rng=seeds.rng(SECTION, "by chance"))
    shown = [~(hidden | sparse) for hidden, sparse in zip(gone, thin, strict=True)]
    gaps = importance_gaps(partitions, view, shown=shown, seeds=seeds)
    cells: list[Cell] = []
    for p, hidden, sparse in zip(partitions, gone, thin, strict=True):
        measured = Measured(subject, metric, p, made=made, seeds=seeds)
        cells.extend(
            _cell(
                p,
                level,
                view=view,
                hidden=bool(hidden[level]),
                sparse=bool(sparse[level]),
                gap=gaps.get((p.name, level)),
                measured=measured,
                smallest=config.min_segment,
                seeds=seeds,
            )
            for level in range(len(p.levels))
        )
    return cells


def importance_gaps(
    partitions: Sequence[Partition],
    view: View,
    *,
    shown: Sequence[npt.NDArray[np.bool_]],
    seeds: Seeds,
) -> dict[tuple[str, int], Difference]:
    """Return the differences of mean |attribution| to the rest, of the levels that are shown.

    Small groups are compared with groups of the same size drawn by chance: sizes of contributions have long tails, for
    which Welch's p-values of a whole table are too small.
    """
    inside = {
        (p.name, int(level)): p.codes[view.rows] == level
        for p, levels in zip(partitions, shown, strict=True)
        for level in np.flatnonzero(levels)
    }
    inside = {key: mask for key, mask in inside.items() if not mask.all()}
    gaps = {
        key: welch(*(moments(view.values[s], _of(view.weights, s)) for s in (mask, ~mask)))
        for key, mask in inside.items()
    }
    small = {key: mask for key, mask in inside.items() if is_small(mask)}
    # the same groups for every column: each test holds for itself
    orders = orders_of(len(view.values) if small else 0, rng=seeds.rng(SECTION, "importance by chance"))
    for column in range(len(view.pairs) if small else 0):
        made = shuffled_values(view.values[:, column], view.weights, orders=orders)
        if made is None:
            continue
        for key, mask in small.items():
            found = by_chance(made, mask)
            gaps[key] = gaps[key] if found is None else gaps[key].with_column(column, found)
    for p in partitions:  # the two levels of a cut in two are one comparison
        if len(p.levels) == 2 and (p.name, 0) in gaps and (p.name, 1) in gaps:
            gaps[p.name, 1] = gaps[p.name, 0].negated()
    return gaps


def metric_of(subject: Subject, *, config: Config) -> Metric | None:
    """Return the first configured (or default) metric; None without labels."""
    if subject.y is None:
        return None
    return next(iter(choose_metrics(config.metrics, subject.model, subject.response)), None)


class Measured:
    """The metric on the levels of one partition; each set of rows is resampled once."""

    def __init__(
        self, subject: Subject, metric: Metric | None, p: Partition, *, made: Shuffled | None, seeds: Seeds
    ) -> None:
        self.subject, self.metric, self.partition = subject.without_inputs(), metric, p
        self.made, self.seeds = made, seeds
        self.drawn: dict[tuple[int, bool], performance.Draws] = {}

    def level(self, level: int) -> tuple[Estimate, Estimate]:
        """Return the metric in a level and its difference to the rest."""
        inside = self.draw(level, rest=False)
        if inside is None:
            return Estimate(), Estimate()
        return performance.interval(inside), self.gap(level, inside)

    def gap(self, level: int, inside: performance.Draws) -> Estimate:
        """Return the difference to the rest; the two levels of a cut in two are one comparison."""
        if level == 1 and len(self.partition.levels) == 2 and self.made is not None:
            found = by_chance(self.made, self.partition.codes == 0)
            found = None if found is None else found.negated()
        else:
            found = None if self.made is None else by_chance(self.made, self.partition.codes == level)
        if found is not None:
            return found
        outside = self.draw(level, rest=True)
        return Estimate() if outside is None else performance.difference(inside, outside)

    def draw(self, level: int, *, rest: bool) -> performance.Draws | None:
        """Return the metric's resamples in a level or in the rest (of a cut in two: the other level)."""
        if rest and len(self.partition.levels) == 2:
            level, rest = 1 - level, False
        rows = np.flatnonzero((self.partition.codes == level) ^ rest)
        if self.metric is None or len(rows) == 0:
            return None
        if (level, rest) not in self.drawn:
            rng = self.seeds.rng(
                SECTION, "metric", self.partition.name, self.partition.levels[level], str(rest)
            )
            self.drawn[level, rest] = performance.draws(self.metric, self.subject, rows, rng=rng)
        return self.drawn[level, rest]


def _cell(
    p: Partition,
    level: int,
    *,
    view: View,
    hidden: bool,
    sparse: bool,
    gap: Difference | None,
    measured: Measured,
    smallest: int,
    seeds: Seeds,
) -> Cell:
    n, inside = int((p.codes == level).sum()), p.codes[view.rows] == level
    blank = np.full(len(view.pairs), np.nan)
    mean, low, high = blank, blank, blank
    if not hidden and not sparse:
        rng = seeds.rng(SECTION, "importance", p.name, p.levels[level])
        mean, low, high = mean_interval(
            view.values[inside], rng=rng, weights=_of(view.weights, inside), resamples=RESAMPLES
        )
    metric, metric_gap = (Estimate(),) * 2 if hidden else measured.level(level)
    return Cell(
        partition=p,
        level=level,
        n=n,
        n_explained=int(inside.sum()),
        withheld=_reason(n, hidden=hidden, smallest=smallest),
        hides_importance=hidden or sparse,
        metric=metric,
        metric_gap=metric_gap,
        mean=mean,
        low=low,
        high=high,
        gap=gap,
        family=(p.name, 0 if len(p.levels) == 2 else level),
    )


def _of(weights: FloatArray | None, mask: npt.NDArray[np.bool_]) -> FloatArray | None:
    return None if weights is None else weights[mask]


def _reason(n: int, *, hidden: bool, smallest: int) -> str | None:
    if not hidden:
        return None
    if n == 0:
        return "no rows"
    return f"under {smallest} rows, or would reveal a segment that is"
