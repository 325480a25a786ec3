"""Segments: whether the model performs as well, and reasons alike, in every part of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from explain_step import privacy
from explain_step.artifacts.performance import why_undefined
from explain_step.artifacts.segment_cells import SECTION, Cell, cells_of, metric_of, view_of
from explain_step.artifacts.segment_performance import value_on
from explain_step.artifacts.segment_rates import rates_artifact
from explain_step.artifacts.segment_rules import (
    FEW,
    Partition,
    check,
    count_levels,
    name_of,
    partition,
    sensitive_columns,
)
from explain_step.artifacts.segment_rules import columns_of as read_columns
from explain_step.artifacts.segment_search import search_artifact
from explain_step.artifacts.segment_suppression import withheld
from explain_step.artifacts.segment_table import table_artifact
from explain_step.config import Config, SegmentDeclaration
from explain_step.config import names as quoted
from explain_step.errors import NotApplicable
from explain_step.quantity import no_labels
from explain_step.seeds import Seeds
from explain_step.ties import just_above
from explain_step.types import Artifact, Attributions, Caveat, Section, Subject

AUTOMATIC = 8
"""Columns used when no segment is declared."""
BINNED = 3
"""Numeric columns cut into quartiles where fewer columns than this have few levels."""
BY_OUTPUT = "model output"


def build(subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds) -> Section:
    """Return performance and importance by segment, with differences to the rest of the data.

    Parameters
    ----------
    subject : Subject
        Segments are cut on ``subject.frame``; performance uses all rows with labels.
    attributions : Attributions
        Importance uses the explained rows.
    config : Config
        ``segments``, ``sensitive``, ``min_segment``, ``top_features``, ``metrics``, ``privacy``, ``redact``.
    seeds : Seeds

    Returns
    -------
    Section
        ``segments``, whose first rows are of all rows and the only ones where nothing can be cut (a caveat that degrades);
        ``segment_rates`` for classifiers; ``segment_search`` where no segment is declared.

    Raises
    ------
    InvalidInput
        A declared segment cannot be read.
    NotApplicable
        Every declared segment is redacted.
    """
    check(config, list(subject.frame.columns))
    found, caveats = partitions(subject, attributions, config=config)
    artifacts: list[Artifact] = []
    if not found and config.segments:
        raise NotApplicable("every declared segment reads a column listed in 'redact'")
    if not found:  # the table still has the row of all rows
        caveats.append(_caveat("no_segment", _why_none(subject, config=config), degrades=True))
    view = view_of(subject, attributions, config=config)
    cells = cells_of(found, subject, view, config=config, seeds=seeds)
    artifacts.append(table_artifact(cells, subject, attributions, view=view, config=config, seeds=seeds))
    undefined = _undefined_metric(cells, subject, config=config)
    caveats = [*caveats, *_cell_caveats(cells, config=config), *undefined]
    rates = rates_artifact(found, subject, attributions, config=config) if found else None
    artifacts.extend([rates] if rates is not None else [])
    if not config.segments:
        search, said = search_artifact(subject, attributions, config=config, seeds=seeds)
        artifacts.extend([search] if search is not None else [])
        caveats.extend(said)
    if subject.y is None:
        caveats.append(
            _caveat("no_labels", f"Segments have no performance: {no_labels(subject)}.", degrades=True)
        )
    return Section(artifacts=tuple(artifacts), caveats=tuple(caveats))


def _why_none(subject: Subject, *, config: Config) -> str:
    """Return why nothing is compared, and what would help: more rows, or another cut of those that are there."""
    n, least = len(subject.frame), config.min_segment
    if n < 2 * least:
        return (
            f"No segment is reported: two groups of at least {least} rows need {2 * least} rows, and there are {n}. "
            "Explain more rows, or lower 'min_segment'."
        )
    return (
        f"No segment is reported: none is declared, and no column cuts the {n:,} rows into groups of at least {least}. "
        "Name one in 'segments', or lower 'min_segment'."
    )


def _caveat(code: str, message: str, *, degrades: bool = False) -> Caveat:
    return Caveat(code=code, section=SECTION, message=message, degrades=degrades)


def partitions(
    subject: Subject, attributions: Attributions, *, config: Config
) -> tuple[list[Partition], list[Caveat]]:
    """Return how the rows are cut, declared cuts first, and what was left out."""
    frame, columns = subject.frame, list(subject.frame.columns)
    wanted: dict[str, tuple[SegmentDeclaration, Any]] = {}
    for declaration in config.segments:
        wanted.setdefault(name_of(declaration), (declaration, "declared"))
    for name in sensitive_columns(config, columns):
        wanted.setdefault(name, (name, "sensitive"))
    if not config.segments:
        for name in _automatic(subject, attributions, config=config):
            wanted.setdefault(name, (name, "found"))
    made: list[Partition] = []
    caveats: list[Caveat] = []
    for name, (declaration, origin) in wanted.items():
        if read_columns(declaration, columns) & privacy.hidden(config):
            text = f"Segment {name!r} is not reported: it reads a column listed in 'redact'."
            caveats.append(_caveat("segment_redacted", text))
        else:
            made.append(partition(declaration, frame, config=config, origin=origin))
    shown = _worth_showing(made, config=config)
    if not shown and not config.segments:
        shown = _worth_showing([_by_output(subject)], config=config)
    return shown, caveats


def _by_output(subject: Subject) -> Partition:
    """Cut the rows at the median of the model's output: a segment that few rows and odd columns allow."""
    output = subject.response.output[:, 0]
    upper = output > just_above(np.median(output))
    name = f"{BY_OUTPUT} ({subject.model.output_names[0]})"
    return Partition(
        name=name,
        levels=("up to its median", "above its median"),
        codes=upper.astype(np.int64),
        origin="found",
        columns=frozenset(),
    )


def _worth_showing(partitions: list[Partition], *, config: Config) -> list[Partition]:
    """Drop found columns that would be withheld but for one level; keep at most `AUTOMATIC` found ones."""
    hidden = withheld(partitions, smallest=config.min_segment)
    shown = {p.name: int((~gone).sum()) for p, gone in zip(partitions, hidden, strict=True)}
    found = [p.name for p in partitions if p.origin == "found" and shown[p.name] > 1][:AUTOMATIC]
    return [p for p in partitions if p.origin != "found" or p.name in found]


def _automatic(subject: Subject, attributions: Attributions, *, config: Config) -> list[str]:
    """Return columns with few levels, the most important first; some numeric ones where these are too few."""
    order = _by_importance(subject, attributions)
    usable = [c for c in order if c != subject.target_name and c not in privacy.hidden(config)]
    few = [c for c in usable if 2 <= count_levels(subject.frame[c]) <= FEW]
    cut = [c for c in usable if c not in few and _is_cut(subject.frame[c])][: max(0, BINNED - len(few))]
    return [*few[: 3 * AUTOMATIC], *cut]


def _is_cut(series: pd.Series[Any]) -> bool:
    return privacy.is_numeric(series) and count_levels(series) > FEW


def _by_importance(subject: Subject, attributions: Attributions) -> list[str]:
    """Return the columns of the frame: the model's by mean absolute attribution, then the others."""
    strength = np.abs(attributions.values).mean(axis=(0, 2)) if len(attributions.rows) else np.zeros(0)
    ranked = sorted(zip(-strength, attributions.feature_names, strict=False))
    model = [name for _, name in ranked if name in subject.frame.columns]
    return [*model, *(str(c) for c in subject.frame.columns if c not in set(model))]


def _cell_caveats(cells: list[Cell], *, config: Config) -> list[Caveat]:
    caveats = []
    for cell in cells:
        if cell.n == 0:
            text = f"Segment {cell.partition.name!r} selects no row."
            caveats.append(_caveat("empty_segment", text, degrades=cell.partition.origin == "declared"))
    for name in _uncut(cells):
        text = f"Segment {name!r} has every row in one level, so that there is nothing to compare."
        caveats.append(_caveat("segment_uncut", text, degrades=True))
    hidden = [c for c in cells if c.withheld is not None and c.n > 0]
    if hidden:
        text = (
            f"{len(hidden)} segment level(s) are withheld: they have under {config.min_segment} rows, or "
            "would reveal "
            "by subtraction a group that has."
        )
        caveats.append(_caveat("segments_withheld", text))
    for name in _wholly_withheld(cells):
        text = (
            f"Every level of segment {name!r} is withheld: declare a coarser one, explain more rows, or lower "
            "'min_segment'."
        )
        caveats.append(_caveat("segment_wholly_withheld", text, degrades=True))
    thin = [c for c in cells if c.withheld is None and c.hides_importance]
    if thin:
        text = (
            f"{len(thin)} segment level(s) have too few explained rows for importance; performance is given."
        )
        caveats.append(_caveat("segments_few_explained", text))
    return caveats


def _undefined_metric(cells: list[Cell], subject: Subject, *, config: Config) -> list[Caveat]:
    """Name the levels on which the metric has no value, where it has one on all rows."""
    metric = metric_of(subject, config=config)
    if metric is None or np.isnan(value_on(metric, subject)):
        return []  # the section on performance says so
    without = [c for c in cells if c.withheld is None and c.n > 0 and np.isnan(c.metric.value)]
    if not without:
        return []
    named = [f"{c.partition.name}: {c.partition.levels[c.level]}" for c in without]
    first = subject.without_inputs().take(np.flatnonzero(without[0].partition.codes == without[0].level))
    where = f"segment {named[0]!r}"
    if len(without) > 1:
        where = f"{len(without)} segment levels ({quoted(named)}), for instance in {named[0]!r}"
    text = f"The metric {metric.name} is not defined in {where}: {why_undefined(first)}."
    wanted = any(c.partition.origin != "found" for c in without)
    return [_caveat("segment_metric_undefined", text, degrades=wanted)]


def _uncut(cells: list[Cell]) -> list[str]:
    """Return the declared segments that have a single level."""
    declared = (c.partition for c in cells if c.partition.origin == "declared")
    return list(dict.fromkeys(p.name for p in declared if len(p.levels) == 1))


def _wholly_withheld(cells: list[Cell]) -> list[str]:
    """Return the declared segments of which nothing is shown."""
    declared = dict.fromkeys(c.partition.name for c in cells if c.partition.origin == "declared")
    shown = {c.partition.name for c in cells if c.withheld is None and c.n > 0}
    return [name for name in declared if name not in shown]
