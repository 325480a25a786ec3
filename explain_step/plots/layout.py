"""Where the panels of a figure stand: every label is measured once and gets the room it needs.

Matplotlib's constrained layout keeps labels inside as well, but measures every text twice; here the labels of
the y axes come first (their width does not depend on the panel's), then everything else once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from explain_step.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADING, FOOTNOTE = "heading", "footnote"
"""Marks (gid) of the texts above and below all panels."""
COMMON = "common"
"""Mark (gid) of an axis label that speaks for several panels and may reach over them: it takes height, no width."""
PAD = 0.042
"""Inches around every panel with its labels, and around heading and footnote."""
LEAST = 0.2
"""Share of a figure that panels keep whatever their labels take."""
APART = 0.04
"""Inches between the labels of two ticks, at least."""
LARGE, MILLIONS, HUGE = 1e4, 2e6, 1e12
"""From where ticks are written with separators, as millions, and as powers of ten."""
FIRST = {"left": 0.3, "right": 0.15, "bottom": 0.35, "top": 0.2}
"""Room in inches that labels are taken to need before they are measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Room:
    """What the labels of one panel need beyond its edges, in pixels."""

    left: float
    right: float
    bottom: float
    top: float


def write_large_ticks(figure: Figure) -> None:
    """Write the ticks of axes that reach beyond 9,999 with thousands separators, and millions as M.

    Only axes that nobody gave names or dates are touched.
    """
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    for axes in figure.axes:
        for axis, ends in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            size, span = max(map(abs, ends)), max(ends) - min(ends)
            wide = span > 20 and span > 1e-3 * size  # else the ticks would need further digits
            if wide and LARGE <= size < HUGE and type(axis.get_major_formatter()) is ScalarFormatter:
                axis.set_major_formatter(FuncFormatter(_millions if size >= MILLIONS else _thousands))


def _thousands(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}".replace("-", "\u2212")


def _millions(value: float, _: int | None = None) -> str:
    return (f"{value / 1e6:,.6g}M" if value else "0").replace("-", "\u2212")


def settle(figure: Figure) -> None:
    """Give heading, panels and footnote of a figure their places, so that no label is cut or overlaps.

    Panels stand in one grid (`Figure.subplots` or `add_subplot`) and keep its ratios of widths and heights.
    """
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    above, below = _edges(figure, renderer)
    first = {side: inches * figure.dpi for side, inches in FIRST.items()}
    names = {axes: {**first, "left": _names_width(axes, renderer)} for axes in panels}
    rooms = {axes: _Room(**sides) for axes, sides in names.items()}
    _place(figure, rooms, above=above, below=below)
    rooms = {axes: _measured(axes, renderer, left=names[axes]["left"]) for axes in panels}
    _place(figure, rooms, above=above, below=below)
    for axes in panels:
        _thin_ticks(axes, renderer, gap=APART * figure.dpi)


def _thin_ticks(axes: Axes, renderer: Any, *, gap: float) -> None:
    """Leave out every second tick of an x axis with numbers while their labels touch."""
    from matplotlib.ticker import ScalarFormatter

    formatter: Any = axes.xaxis.get_major_formatter()
    if type(formatter) is not ScalarFormatter and getattr(formatter, "func", None) not in (
        _thousands,
        _millions,
    ):
        return  # names, or dates that say what changes from one to the next
    low, high = sorted(axes.get_xlim())
    shown = [float(x) for x in axes.get_xticks() if low <= x <= high]
    while len(shown) > 2 and _touch(axes, renderer, gap=gap):
        shown = shown[:: 3 if len(shown) == 4 else 2]
        axes.set_xticks(shown)


def _touch(axes: Axes, renderer: Any, *, gap: float) -> bool:
    """Return whether the labels of two ticks of the x axis stand nearer than ``gap`` pixels."""
    from explain_step.plots.panel import label_boxes

    boxes = sorted(label_boxes(axes.xaxis, renderer), key=lambda box: float(box[0]))
    return any(after[0] - before[2] < gap for before, after in pairwise(boxes))


def _edges(figure: Figure, renderer: Any) -> tuple[float, float]:
    """Put heading and footnote at the edges; return what they take of the height, in pixels."""
    pad, height = PAD * figure.dpi, figure.bbox.height
    taken = {HEADING: 0.0, FOOTNOTE: 0.0}
    for text in figure.texts:
        mark = text.get_gid()
        if mark in taken and text.get_text():
            text.set_y(1 - pad / height if mark == HEADING else pad / height)
            taken[mark] = text.get_window_extent(renderer).height + 2 * pad
    return taken[HEADING], taken[FOOTNOTE]


def _names_width(axes: Axes, renderer: Any) -> float:
    """Return the width in pixels of ticks, tick labels and label left of a panel."""
    box = axes.yaxis.get_tightbbox(renderer) if axes.yaxis.get_visible() else None
    return 0.0 if box is None else max(float(axes.bbox.x0 - box.x0), 0.0)


def _measured(axes: Axes, renderer: Any, *, left: float) -> _Room:
    """Return what a panel's labels need, with ``left`` known from before; marks stay inside and are not asked."""
    common = [axes.xaxis.label] if axes.xaxis.label.get_gid() == COMMON else []
    beside = [*axes.texts, *axes.child_axes, *([legend] if (legend := axes.get_legend()) else [])]
    with _hidden([axes.yaxis, *common]):
        box = axes.get_tightbbox(renderer, bbox_extra_artists=[a for a in beside if a.get_in_layout()])
    if box is None:
        return _Room(left=left, right=0.0, bottom=0.0, top=0.0)
    lowest = min([box.y0, *(float(label.get_window_extent(renderer).y0) for label in common)])
    return _Room(
        left=max(left, axes.bbox.x0 - box.x0),
        right=max(box.x1 - axes.bbox.x1, 0.0),
        bottom=max(axes.bbox.y0 - lowest, 0.0),
        top=max(box.y1 - axes.bbox.y1, 0.0),
    )


@contextmanager
def _hidden(artists: Sequence[Artist]) -> Iterator[None]:
    """Leave artists out of what is measured."""
    shown = [artist.get_visible() for artist in artists]
    for artist in artists:
        artist.set_visible(False)
    try:
        yield
    finally:
        for artist, visible in zip(artists, shown, strict=True):
            artist.set_visible(visible)


def _place(figure: Figure, rooms: Mapping[Axes, _Room], *, above: float, below: float) -> None:
    """Set the panels' positions: what is left beside the labels is shared by the grid's ratios."""
    if not rooms:
        return
    pad, width, height = PAD * figure.dpi, figure.bbox.width, figure.bbox.height
    spec = next(iter(rooms)).get_subplotspec()
    assert spec is not None  # panels have one
    grid = spec.get_gridspec()
    at = {axes: _cell(axes) for axes in rooms}
    lefts, rights = (
        _widest([(at[a][1], getattr(r, side)) for a, r in rooms.items()], grid.ncols) + pad
        for side in ("left", "right")
    )
    tops, bottoms = (
        _widest([(at[a][0], getattr(r, side)) for a, r in rooms.items()], grid.nrows) + pad
        for side in ("top", "bottom")
    )
    x0, wide = _spread(lefts, rights, ratios=grid.get_width_ratios(), room=width)
    y0, tall = _spread(tops, bottoms, ratios=grid.get_height_ratios(), room=height - above - below)
    for axes, (row, column) in at.items():
        bottom = height - above - y0[row] - tall[row]
        axes.set_position((x0[column] / width, bottom / height, wide[column] / width, tall[row] / height))


def _cell(axes: Axes) -> tuple[int, int]:
    spec = axes.get_subplotspec()
    assert spec is not None  # panels have one
    return spec.rowspan.start, spec.colspan.start


def _widest(needs: Sequence[tuple[int, float]], count: int) -> FloatArray:
    """Return the largest need in each row or column of the grid."""
    most = np.zeros(count)
    for place, need in needs:
        most[place] = max(most[place], need)
    return most


def _spread(
    before: FloatArray, after: FloatArray, *, ratios: Any, room: float
) -> tuple[FloatArray, FloatArray]:
    """Return start and size of the panels along one direction."""
    free = max(room - float(before.sum() + after.sum()), LEAST * room)
    shares = np.asarray(ratios if ratios is not None else np.ones(len(before)), dtype=np.float64)
    sizes = free * shares / shares.sum()
    steps = before + sizes + after
    return before + np.concatenate([[0.0], np.cumsum(steps)[:-1]]), sizes
