"""Groups that a search found: performance of each on rows the search did not see, and of all other rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explain_step.plots import style
from explain_step.plots.segment_lines import METRIC_NAMES, NOTABLE, draw_dots, limits, metric_dot
from explain_step.types import Artifact, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "What a search for weak groups found"
SAME = 1e-6
"""Relative difference up to which the values of all rows that two groups imply are the same."""


def jobs(artifact: Artifact) -> tuple[style.Job, ...]:
    """Plan a line per group, the worst of the search first; nothing where none was found.

    Parameters
    ----------
    artifact : Artifact
        The table ``segment_search``.
    """
    table = artifact.table[artifact.table["metric_value"].notna()].reset_index(drop=True)
    return () if table.empty else (partial(_groups, table, meta=artifact.meta),)


draw = style.drawing(jobs)


def _groups(table: pd.DataFrame, *, meta: Mapping[str, Any]) -> Figure:
    metric = str(table["metric"].iloc[0])
    names = [_conditions(str(rule)) for rule in table["rule"]]
    figure, axes = style.new_figure(style.WIDTH, 1.5 + style.row_height(names, one=0.3))
    rows = table.to_dict("records")
    draw_dots(axes, [metric_dot(row, len(rows) - 1 - i, p="p_adjusted") for i, row in enumerate(rows)])
    whole = overall(table, metric=metric)
    if whole is not None:
        axes.axvline(whole, color=style.GREY, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    _rests(axes, table)
    _lanes(axes, table, names)
    words = METRIC_NAMES.get(metric, metric.replace("_", " "))
    better = "higher" if meta.get("metric_direction") == "higher" else "lower"
    axes.set_xlabel(f"{words} ({better} is better)")
    style.heading(figure, TITLE)
    style.footnote(figure, _note(meta, whole=whole))
    alt = _alt(table, words=words, whole=whole)
    return style.finish(figure, kind="segments", slug="search", title=TITLE, alt=alt)


def _conditions(rule: str) -> str:
    """Return a rule with each of its conditions on a line of its own."""
    parts = rule.split(" and ")
    lines = [part + " and" * (k + 1 < len(parts)) for k, part in enumerate(parts)]
    return "\n".join(style.wrap(line, 34, lines=1) for line in lines)


def overall(table: pd.DataFrame, *, metric: str) -> float | None:
    """Return the metric of all reported rows, from each group's share and both sides of its cut.

    Every group implies the same value when rows count alike; with a single group, or with weighted rows, it
    cannot be known from the table and is None.
    """
    power = 2 if metric == "rmse" else 1
    inside, outside = (table[c].to_numpy(dtype=np.float64) ** power for c in ("metric_value", "rest_value"))
    share = table["share"].to_numpy(dtype=np.float64)
    implied = (share * inside + (1 - share) * outside) ** (1 / power)
    if len(implied) < 2 or not np.isfinite(implied).all():
        return None
    return float(implied[0]) if np.ptp(implied) <= SAME * np.abs(implied).max() else None


def _rests(axes: Axes, table: pd.DataFrame) -> None:
    """Mark the value of all other rows on each line."""
    lanes = len(table) - 1 - np.arange(len(table))
    axes.plot(
        *(table["rest_value"].to_numpy(dtype=np.float64), lanes),
        linestyle="none",
        marker="|",
        markersize=11,
        markeredgewidth=1.4,
        color=style.GREY,
        zorder=2,
    )


def _lanes(axes: Axes, table: pd.DataFrame, names: list[str]) -> None:
    count = len(table)
    axes.set_yticks(range(count), names[::-1])
    axes.set_ylim(-0.6, count - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(*limits(table[["metric_value", "metric_ci_low", "metric_ci_high", "rest_value"]]))
    axes.locator_params(axis="x", nbins=5)
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "color": style.GREY}
    axes.text(1.11, count - 0.5, "rows", va="bottom", fontsize=style.SMALL, **place)
    for lane, n in zip(range(count - 1, -1, -1), table["n"], strict=True):
        axes.text(1.11, lane, f"{int(n):,}", va="center", fontsize=style.SMALL, **place)


def _note(meta: Mapping[str, Any], *, whole: float | None) -> str:
    rows = int(meta.get("report_rows", 0))
    line = "" if whole is None else f" dashed line: all of them, {style.number(whole)};"
    return (
        f"Dots with 95% intervals, on {rows:,} rows that the search did not use; grey ticks: all other rows of "
        f"these;{line} filled dots differ from the other rows (adjusted p < {NOTABLE})."
    )


def _alt(table: pd.DataFrame, *, words: str, whole: float | None) -> str:
    said = [_said(row) for row in table.to_dict("records")]
    line = "" if whole is None else f" All rows: {style.number(whole)}."
    return f"{TITLE}: {words}.{line} {' '.join(said)}"


def _said(row: Mapping[Any, Any]) -> str:
    value, low, high, rest = (
        style.number(float(row[c])) for c in ("metric_value", "metric_ci_low", "metric_ci_high", "rest_value")
    )
    p = row.get("p_adjusted")
    differs = ", differs" if p is not None and pd.notna(p) and float(p) < NOTABLE else ""
    return f"{row['rule']} ({int(row['n']):,} rows): {value} ({low} to {high}), other rows {rest}{differs}."
