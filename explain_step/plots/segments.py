"""Segments as dots: performance with intervals around the overall line, rates, and importance by segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from explain_step.plots import segment_search, style
from explain_step.plots.segment_lines import (
    ALL,
    LINE,
    METRIC_NAMES,
    NOTABLE,
    Dot,
    Line,
    Row,
    blocks_of,
    count_column,
    draw_dots,
    firsts_of,
    limits,
    metric_dot,
    name_lines,
    quiet,
    say_withheld,
)
from explain_step.types import Artifact, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_OUTPUTS = 4
RATE_NAMES = {
    "selection_rate": "predicted to be",
    "tpr": "true positive rate",
    "fpr": "false positive rate",
}


def jobs(artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str]) -> tuple[style.Job, ...]:
    """Plan performance, rates (classifiers) and importance by segment, and the groups that a search found."""
    artifact = artifacts.get("segments")
    if artifact is None or artifact.table.empty:
        return ()
    found: list[style.Job] = []
    blocks = blocks_of(artifact.table)
    rates = artifacts.get("segment_rates")
    for part, lines in enumerate(blocks):
        if artifact.table["metric_value"].notna().any():
            found.append(partial(_performance, artifact, lines, part=part, labels=labels))
        if rates is not None:
            found += _rates(rates, lines, part=part, labels=labels)
        outputs = [str(o) for o in artifact.table["output"].dropna().unique()]
        several = len(outputs) > 1
        found += [
            partial(_importance, artifact, lines, output, part=part, several=several, labels=labels)
            for output in outputs[:MOST_OUTPUTS]
        ]
    if "segment_search" in artifacts:
        found[1:1] = segment_search.jobs(artifacts["segment_search"])
    return tuple(found)


draw = style.drawing(jobs)


# ------------------------------------------------------------------------------------------ performance


def _performance(
    artifact: Artifact, lines: Sequence[Line], *, part: int, labels: Mapping[str, str]
) -> Figure:
    table = artifact.table
    firsts = firsts_of(table)
    overall = table[table["segment"] == ALL].iloc[0]
    figure, axes = style.new_figure(style.WIDTH, 1.35 + LINE * len(lines))
    metric = str(artifact.meta.get("metric"))
    dots = [
        metric_dot(firsts[line.segment, line.level], len(lines) - 1 - i, p="metric_p_adjusted")
        for i, line in enumerate(lines)
        if line.level is not None and not line.withheld
    ]
    draw_dots(axes, dots)
    low, high = limits(table[["metric_value", "metric_ci_low", "metric_ci_high"]])
    axes.set_xlim(low, high)
    axes.locator_params(axis="x", nbins=7)
    axes.axvspan(overall["metric_ci_low"], overall["metric_ci_high"], color=style.FAINT, zorder=0)
    axes.axvline(overall["metric_value"], color=style.GREY, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    name_lines(axes, lines, labels=labels)
    count_column(axes, lines)
    say_withheld(axes, lines)
    words = METRIC_NAMES.get(metric, metric.replace("_", " "))
    better = "higher" if artifact.meta.get("metric_direction") == "higher" else "lower"
    axes.set_xlabel(f"{words} ({better} is better)")
    title = f"Performance by segment: {words}"
    style.heading(figure, title)
    style.footnote(
        figure,
        f"Dots with 95% intervals; dashed line and band: all {int(overall['n']):,} rows, "
        f"{style.number(float(overall['metric_value']))}. "
        "Filled dots differ from the rest of the data (adjusted p < 0.05).",
    )
    said = [
        _said(line, firsts, value="metric_value", p="metric_p_adjusted")
        for line in lines
        if line.level is not None
    ]
    alt = f"{title}. All rows: {style.number(float(overall['metric_value']))}. {' '.join(said)}"
    return style.finish(figure, kind="segments", slug=_slug("performance", part), alt=alt, title=title)


def _said(line: Line, firsts: Mapping[tuple[str, str], Row], *, value: str, p: str) -> str:
    name = f"{line.segment} {line.level}"
    if line.withheld:
        return f"{name}: {'no rows' if line.n == 0 else 'withheld'}."
    row = firsts[line.segment, str(line.level)]
    differs = ", differs" if pd.notna(row.get(p)) and float(row[p]) < NOTABLE else ""
    return f"{name} ({int(line.n):,} rows): {style.number(float(row[value]))}{differs}."


def _slug(name: str, part: int) -> str:
    return name if part == 0 else f"{name}-{part + 1}"


# ------------------------------------------------------------------------------------------ rates


def _rates(
    artifact: Artifact, lines: Sequence[Line], *, part: int, labels: Mapping[str, str]
) -> list[style.Job]:
    outputs = [str(o) for o in artifact.table["output"].unique()]
    panels = partial(_rate_panels, part=part, several=len(outputs) > 1, labels=labels)
    return [
        partial(panels, artifact.table[artifact.table["output"] == output], lines, output)
        for output in outputs[:MOST_OUTPUTS]
    ]


def _rate_panels(
    table: pd.DataFrame,
    lines: Sequence[Line],
    output: str,
    *,
    part: int,
    several: bool,
    labels: Mapping[str, str],
) -> Figure:
    rates = [str(r) for r in table["rate"].unique()]
    figure = style.blank_figure(style.WIDTH, 1.35 + LINE * len(lines))
    panels = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
    for axes, rate in zip(panels, rates, strict=True):
        axes.patch.set_visible(False)  # a long heading runs on behind
        rows = table[table["rate"] == rate]
        firsts = firsts_of(rows)
        dots: list[Dot] = []
        for i, line in enumerate(lines):
            row = firsts.get((line.segment, str(line.level)))
            if row is not None and pd.isna(row["withheld"]):
                dots.append(_rate_dot(row, len(lines) - 1 - i))
            elif row is not None:
                quiet(axes, 0.25, len(lines) - 1 - i, "withheld")
        draw_dots(axes, dots, size=5)
        overall = rows[rows["segment"] == ALL].iloc[0]
        axes.axvline(overall["value"], color=style.GREY, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
        axes.locator_params(axis="x", nbins=3)  # the last label stands beside the next panel's first one
        axes.set_xlim(-0.03, max(1e-3, float(np.nanmax([*rows["ci_high"], 0.1]))) * 1.04)
        words = RATE_NAMES.get(rate, rate)
        axes.set_title(f"{words} {style.wrap(output, 10, lines=1)}" if rate == "selection_rate" else words,
                       fontsize=style.SMALL, color=style.INK)  # fmt: skip
    name_lines(panels[0], lines, labels=labels, width=18)
    for axes in panels[1:]:
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    title = f"Decisions by segment: {output}" if several else "Decisions by segment"
    style.heading(figure, title, names=[output])
    style.footnote(
        figure,
        f"Shares with 95% intervals; dashed line: all {_rows(table):,} rows. Filled dots: the interval of the "
        "difference to the rest of the data, one segment at a time, excludes 0.",
    )
    return style.finish(
        figure,
        kind="segments",
        slug=_slug(f"rates_{style.slug(output)}", part),
        alt=f"{title}. {_rate_words(table, lines)}",
        title=title,
    )


def _rows(table: pd.DataFrame) -> int:
    """Return how many rows all shares are of (those of the actual classes are of fewer)."""
    return int(table.loc[(table["segment"] == ALL) & (table["rate"] == "selection_rate"), "n"].max())


def _rate_dot(row: Row, y: float) -> Dot:
    apart = row["difference_ci_low"] > 0 or row["difference_ci_high"] < 0
    return Dot(y=y, value=row["value"], low=row["ci_low"], high=row["ci_high"], filled=bool(apart))


def _rate_words(table: pd.DataFrame, lines: Sequence[Line]) -> str:
    wanted = {(line.segment, line.level) for line in lines if line.level is not None}
    said = []
    for rate, rows in table.groupby("rate", sort=False):
        cells = [
            r
            for r in rows.to_dict("records")
            if (r["segment"], r["level"]) in wanted and pd.notna(r["value"])
        ]
        texts = [f"{r['segment']} {r['level']} {style.number(float(r['value']), 2)}" for r in cells]
        said.append(f"{RATE_NAMES.get(str(rate), str(rate))}: {', '.join(texts)}.")
    return " ".join(said)


# ------------------------------------------------------------------------------------------ importance


def _importance(
    artifact: Artifact,
    lines: Sequence[Line],
    output: str,
    *,
    part: int,
    several: bool,
    labels: Mapping[str, str],
) -> Figure:
    table = artifact.table[artifact.table["output"] == output]
    features = [str(f) for f in table["feature"].drop_duplicates()]
    cells = {(str(r["segment"]), str(r["level"]), str(r["feature"])): r for r in table.to_dict("records")}
    largest = float(table["mean_abs_shap"].max())
    names = style.names(features, labels=labels, width=16, lines=1)
    figure, axes = style.new_figure(style.WIDTH, 1.75 + LINE * len(lines))
    found = [
        (j, len(lines) - 1 - i, cells.get((line.segment, str(line.level), feature)))
        for j, feature in enumerate(features)
        for i, line in enumerate(lines)
    ]
    known = [(x, y, r) for x, y, r in found if r is not None and np.isfinite(r["mean_abs_shap"])]
    _blobs(axes, known, largest=largest)
    axes.set_xlim(-0.6, len(features) - 0.4)
    axes.set_xticks(range(len(features)), names, rotation=38, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, pad=2)
    axes.spines["bottom"].set_visible(False)
    name_lines(axes, lines, labels=labels)
    say_withheld(axes, lines)
    title = f"Importance by segment: {output}" if several else "Importance by segment"
    quantity = artifact.meta.get("quantity", {})
    style.heading(figure, title, names=[output])
    style.footnote(
        figure,
        "Area: mean absolute attribution. Red with an upward mark: larger than in the rest of the data, "
        "blue with a "
        "downward mark: smaller (adjusted p < 0.05); grey: no difference shown. "
        f"Explained: {style.effect_words(quantity, output)}; {style.declared(quantity)}.",
    )
    return style.finish(
        figure,
        kind="segments",
        slug=_slug(f"importance_{style.slug(output)}", part),
        alt=f"{title}. {_importance_words(table, lines, labels=labels)}",
        title=title,
    )


def _blobs(axes: Axes, cells: Sequence[tuple[int, int, Row]], *, largest: float) -> None:
    """Draw a dot per cell, with a mark beside it where it differs; each kind of mark at once."""
    marks = [_mark(row) for _, _, row in cells]
    colours = {"": style.LIGHT, "^": style.RED, "v": style.BLUE}
    sizes = [6 + 125 * float(r["mean_abs_shap"]) / largest if largest > 0 else 6.0 for _, _, r in cells]
    x, y = [float(c[0]) for c in cells], [float(c[1]) for c in cells]
    axes.scatter(x, y, s=sizes, color=[colours[m] for m in marks], edgecolor="none", zorder=3)
    for mark in ("^", "v"):
        at = [(c[0] + 0.25, c[1]) for c, m in zip(cells, marks, strict=True) if m == mark]
        if at:
            beside, lanes = zip(*at, strict=True)
            axes.scatter(beside, lanes, s=9, marker=mark, color=style.INK, edgecolor="none", zorder=4)


def _mark(row: Row) -> str:
    """Return whether a cell is larger (``^``) or smaller (``v``) than in the rest, or empty."""
    if pd.isna(row["p_adjusted"]) or float(row["p_adjusted"]) >= NOTABLE:
        return ""
    return "^" if float(row["difference"]) > 0 else "v"


def _importance_words(table: pd.DataFrame, lines: Sequence[Line], *, labels: Mapping[str, str]) -> str:
    wanted = {(line.segment, line.level) for line in lines}
    notable = table[table["p_adjusted"] < NOTABLE].sort_values("p_adjusted", kind="stable")
    said = []
    for row in notable.to_dict("records"):
        if (row["segment"], row["level"]) in wanted:
            how = "more" if row["difference"] > 0 else "less"
            name = labels.get(str(row["feature"]), str(row["feature"]))
            said.append(f"{name} matters {how} for {row['segment']} {row['level']}")
    if not said:
        return "No difference between a segment and the rest of the data stands out."
    more = f"; and {len(said) - 12} more" if len(said) > 12 else ""
    return "; ".join(said[:12]) + more + "."
