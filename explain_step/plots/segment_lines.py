"""Lines that the figures of segments share: a heading per segment, a line per level, in the table's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explain_step.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL = "(all rows)"
MOST_LINES = 34
"""Lines of one figure; more segments go on another."""
LINE = 0.205
"""Inches per line."""
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
"""Behind words on lines and bands."""


Row = Mapping[Any, Any]
"""A row of a table by column."""
NOTABLE = 0.05
"""Adjusted p-value under which a difference is marked."""
METRIC_NAMES = {
    "roc_auc": "ROC AUC",
    "brier": "Brier score",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R\u00b2",
    "f1": "F1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a figure: the heading of a segment or one of its levels."""

    segment: str
    level: str | None
    n: float
    withheld: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A value with its interval on the line at a height."""

    y: float
    value: float
    low: float
    high: float
    filled: bool


def blocks_of(table: pd.DataFrame) -> list[list[Line]]:
    """Return headings and levels in the order of the table, in blocks that fit one figure."""
    blocks: list[list[Line]] = [[]]
    shown = table[table["segment"] != ALL]
    for segment, rows in shown.groupby("segment", sort=False):
        firsts = rows.drop_duplicates("level")
        cells = zip(firsts["level"], firsts["n"], firsts["withheld"].notna(), strict=True)
        lines = [Line(segment=str(segment), level=None, n=np.nan, withheld=False)]
        lines += [Line(segment=str(segment), level=str(a), n=float(n), withheld=bool(w)) for a, n, w in cells]
        if blocks[-1] and len(blocks[-1]) + len(lines) > MOST_LINES:
            blocks.append([])
        blocks[-1].extend(lines)
    return [block for block in blocks if block]


def name_lines(axes: Axes, lines: Sequence[Line], *, labels: Mapping[str, str], width: int = 24) -> None:
    """Write headings and levels beside the axis; a heading may run into the plot, where nothing stands."""
    count = len(lines)
    texts = ["" if line.level is None else style.wrap(line.level, width, lines=1) for line in lines]
    axes.set_yticks(range(count), texts[::-1])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, count - 0.3)
    axes.spines["left"].set_visible(False)
    for i, line in enumerate(lines):
        if line.level is None:
            text = style.wrap(labels.get(line.segment, line.segment), 38, lines=1)
            _heading(axes, text, count - 1 - i, runs_on=len(text) > width)


def _heading(axes: Axes, text: str, y: float, *, runs_on: bool) -> None:
    """Write a segment's name in bold; a long one starts at the axis and takes no part in the layout."""
    written = axes.annotate(
        text,
        xy=(0, y),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -1),
        textcoords="offset points",
        ha="left" if runs_on else "right",
        va="center",
        fontsize=style.SMALL,
        fontweight="bold",
        color=style.INK,
        annotation_clip=False,
        bbox=PLATE,
        zorder=5,
    )
    written.set_in_layout(not runs_on)


def count_column(axes: Axes, lines: Sequence[Line]) -> None:
    """Write the number of rows of each level at the right."""
    count = len(lines)
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "fontsize": style.SMALL}
    axes.text(1.09, count - 0.35, "rows", va="bottom", color=style.GREY, **place)
    for i, line in enumerate(lines):
        if line.level is not None and np.isfinite(line.n):
            axes.text(1.09, count - 1 - i, f"{int(line.n):,}", va="center", color=style.GREY, **place)


def quiet(axes: Axes, x: float, y: float, text: str) -> None:
    """Write small grey words at a share of the axis width, readable on lines and bands."""
    axes.text(
        x,
        y,
        text,
        transform=axes.get_yaxis_transform(),
        ha="center",
        va="center",
        fontsize=style.SMALL - 0.5,
        color=style.GREY,
        fontstyle="italic",
        bbox=PLATE,
        zorder=5,
    )


def say_withheld(axes: Axes, lines: Sequence[Line]) -> None:
    """Write on each withheld line that it is."""
    for i, line in enumerate(lines):
        if line.withheld:
            text = "no rows" if line.n == 0 else "withheld: too few rows"
            quiet(axes, 0.5, len(lines) - 1 - i, text)


def firsts_of(table: pd.DataFrame) -> dict[tuple[str, str], Row]:
    """Return the first row of each level."""
    unique = table.drop_duplicates(["segment", "level"])
    return {(str(r["segment"]), str(r["level"])): r for r in unique.to_dict("records")}


def limits(values: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of an axis that shows all known values."""
    known = values.to_numpy(dtype=np.float64)
    known = known[np.isfinite(known)]
    low, high = float(known.min()), float(known.max())
    room = 0.04 * (high - low) or 0.05 * max(abs(high), 1e-9)
    return low - room, high + room


def draw_dots(axes: Axes, dots: Sequence[Dot], *, size: float = 6) -> None:
    """Draw values with their intervals, where there are any; a value that is not known is said to be undefined."""
    for dot in dots:
        if not np.isfinite(dot.value):
            quiet(axes, 0.5, dot.y, "not defined (one class only)")
    known = [dot for dot in dots if np.isfinite(dot.value)]
    whole = [dot for dot in known if np.isfinite([dot.low, dot.high]).all()]
    ends = [(dot.low, dot.high) for dot in whole]
    low, high = np.array(ends, dtype=np.float64).reshape(-1, 2).T
    axes.hlines([dot.y for dot in whole], low, high, color=style.ACCENT, linewidth=1.4, zorder=3)
    for filled in (True, False):
        some = [dot for dot in known if dot.filled is filled]
        axes.plot(
            [dot.value for dot in some],
            [dot.y for dot in some],
            linestyle="none",
            marker="o",
            markersize=size,
            markerfacecolor=style.ACCENT if filled else "white",
            markeredgecolor=style.ACCENT,
            zorder=4,
        )


def metric_dot(row: Row, y: float, *, p: str) -> Dot:
    """Return the metric of a group; filled where its adjusted p-value is below `NOTABLE`."""
    return Dot(
        y=y,
        value=float(row["metric_value"]),
        low=float(row["metric_ci_low"]),
        high=float(row["metric_ci_high"]),
        filled=pd.notna(row.get(p)) and float(row[p]) < NOTABLE,
    )
