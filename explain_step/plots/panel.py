"""Axes that draw all their ticks at once.

Matplotlib makes four artists for each tick, copies their properties and measures them again and again: two fifths of the
drawing. Here an axis keeps no ticks. It draws marks, grid lines and labels from its locator, its formatter and the usual
settings (`tick_params`, `grid`, `set_ticks`), and measures each label once. There are no minor ticks.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis, YAxis
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Bbox, IdentityTransform

from explain_step.types import FloatArray

NEAR, FAR = ("left", "bottom"), ("right", "top")
"""The sides of y and x axes where ticks stand, and the opposite ones, where only labels may."""


class _Ticks:
    """The ticks of an axis in its present view."""

    def __init__(self, axis: _Light) -> None:
        self.axis, self.axes = axis, axis.axes
        self.along = "xy".index(axis.axis_name)
        self.params = {**axis.defaults, **axis.get_tick_params()}
        self.far = self._shown("label", FAR, default=False)
        self.labelled = self.far or self._shown("label", NEAR, default=True)
        every = np.asarray(axis.get_majorticklocs(), dtype=np.float64)
        low, high = sorted(axis.get_view_interval())
        spare = 1e-10 * (high - low)
        inside = (every >= low - spare) & (every <= high + spare)
        self.locs = every[inside]
        marked = len(self.locs) > 0 and self._shown("", NEAR, default=True)
        self.length = self.params["length"] if marked else 0.0
        words = axis.get_major_formatter().format_ticks(every.tolist()) if self.labelled else []
        self.words = [word for word, seen in zip(words, inside, strict=False) if seen]
        anchor = getattr(self.axes, f"get_{axis.axis_name}axis_text{1 + self.far}_transform")
        transform, self.va, self.ha = anchor(self.params["pad"] + self.params["length"])
        self.places = self.pixels(transform, across=float(self.far))

    def _shown(self, what: str, sides: tuple[str, str], *, default: bool) -> bool:
        # of an x axis, older releases say left for bottom and right for top
        said = [self.params[what + side] for side in sides if what + side in self.params]
        return bool(said[0]) if said else default

    def pixels(self, transform: Any, *, across: float) -> FloatArray:
        """Return where the ticks are, at a share of the panel across the axis."""
        points = np.full((len(self.locs), 2), across)
        points[:, self.along] = self.locs
        found: FloatArray = transform.transform(points)
        return found

    def label(self) -> Text:
        """Return a text that looks like the labels; it is anchored in pixels."""
        text = Text(
            transform=IdentityTransform(),
            fontsize=self.params["labelsize"],
            color=self.params["labelcolor"],
            verticalalignment=self.va,
            horizontalalignment=self.ha,
            **self.axis.looks,
        )
        text.set_figure(self.axes.figure)
        return text

    def boxes(self, renderer: Any) -> list[FloatArray]:
        """Return left, lower, right and upper edge of the labels."""
        known = self.axis.known
        if missing := [word for word in self.words if word not in known]:
            text = self.label()
            for word in missing:
                text.set_text(word)
                known[word] = np.array(text.get_window_extent(renderer).extents)
        shown = zip(self.words, np.hstack([self.places, self.places]), strict=False)
        return [known[word] + corners for word, corners in shown if word]

    def draw_labels(self, renderer: Any) -> None:
        """Draw the labels, one text after the other."""
        text = self.label()
        for word, place in zip(self.words, self.places, strict=False):
            text.set_text(word)
            text.set_position(place)
            text.draw(renderer)

    def draw_lines(self, renderer: Any) -> None:
        """Draw grid lines and marks as one path each."""
        edge = getattr(self.axes, f"get_{self.axis.axis_name}axis_transform")()
        starts = self.pixels(edge, across=0.0)
        if self.params.get("gridOn"):
            colour, width = self.params["grid_color"], self.params["grid_linewidth"]
            _draw_segments(renderer, starts, self.pixels(edge, across=1.0), colour=colour, width=width)
        if self.length > 0:
            ends = starts.copy()
            ends[:, 1 - self.along] -= renderer.points_to_pixels(self.length)
            colour, width = self.params["color"], self.params["width"]
            _draw_segments(renderer, starts, ends, colour=colour, width=width)


def _draw_segments(renderer: Any, starts: FloatArray, ends: FloatArray, *, colour: Any, width: float) -> None:
    if not len(starts):
        return
    context = renderer.new_gc()
    context.set_foreground(to_rgba(colour), isRGBA=True)
    context.set_linewidth(width)
    context.set_capstyle("butt")
    context.set_snap(True)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(starts))
    path = Path(np.stack([starts, ends], axis=1).reshape(-1, 2), codes)
    renderer.draw_path(context, path, IdentityTransform())
    context.restore()


def _defaults(name: str) -> dict[str, Any]:
    """Return how ticks look where nothing is said."""
    settings: Any = mpl.rcParams
    inherited = settings[f"{name}.labelcolor"] == "inherit"
    return {
        "length": settings[f"{name}.major.size"],
        "width": settings[f"{name}.major.width"],
        "pad": settings[f"{name}.major.pad"],
        "color": settings[f"{name}.color"],
        "labelsize": settings[f"{name}.labelsize"],
        "labelcolor": settings[f"{name}.{'color' if inherited else 'labelcolor'}"],
        "grid_color": settings["grid.color"],
        "grid_linewidth": settings["grid.linewidth"],
    }


class _Light(Axis):
    """An axis without tick objects."""

    axis_name: str

    def reset_ticks(self) -> None:
        """Start anew, without ticks.

        ``defaults`` are the present settings, ``looks`` what `set_ticks` says of the labels, ``known`` the boxes of labels
        around their anchors.
        """
        self.majorTicks: list[Any] = []
        self.minorTicks: list[Any] = []
        self.looks: dict[str, Any] = {}
        self.known: dict[str, FloatArray] = {}
        self.defaults: dict[str, Any] = _defaults(f"{self.axis_name}tick")

    def get_major_ticks(self, numticks: int | None = None) -> list[Any]:
        """Return nothing: no tick is kept."""
        return []

    def get_minor_ticks(self, numticks: int | None = None) -> list[Any]:
        """Return nothing: there are none."""
        return []

    def get_ticks_position(self) -> Any:
        """Return the side with the labels, the usual one where there are none."""
        ticks = _Ticks(self)
        return (FAR if ticks.far else NEAR)[1 - ticks.along]

    def set_tick_params(self, which: Any = "major", reset: bool = False, **params: Any) -> None:
        """Set how ticks look."""
        super().set_tick_params(which, reset, **params)
        self.known.clear()

    def set_ticklabels(self, labels: Any, **looks: Any) -> list[Any]:
        """Set the labels of fixed ticks, and how they look."""
        self.looks |= {k: v for k, v in looks.items() if k != "minor"}
        self.known.clear()
        super().set_ticklabels(labels)
        return []

    def get_majorticklabels(self) -> list[Text]:
        """Return the labels in view."""
        ticks = _Ticks(self)
        texts = [ticks.label() for _ in ticks.words]
        for text, word, place in zip(texts, ticks.words, ticks.places, strict=False):
            text.set_text(word)
            text.set_position(place)
        return texts

    def get_children(self) -> list[Any]:
        """Return what is drawn as text."""
        return [self.label, self.offsetText, *self.get_majorticklabels()]

    def get_tightbbox(self, renderer: Any = None, *, for_layout_only: bool = False) -> Bbox | None:
        """Return the box around the labels of ticks and axis in pixels; None where there are none."""
        if not self.get_visible():
            return None
        boxes = self._settle(_Ticks(self), renderer)
        beside = [text for text in (self.label, self.offsetText) if text.get_visible() and text.get_text()]
        boxes += [np.array(text.get_window_extent(renderer).extents) for text in beside]
        if not boxes:
            return None
        return Bbox([np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]])

    def draw(self, renderer: Any) -> None:
        """Draw grid lines, marks and labels."""
        if not self.get_visible():
            return
        ticks = _Ticks(self)
        ticks.draw_lines(renderer)
        ticks.draw_labels(renderer)
        self._settle(ticks, renderer)
        self.label.draw(renderer)
        self.offsetText.draw(renderer)
        self.stale = False

    def _settle(self, ticks: _Ticks, renderer: Any) -> list[FloatArray]:
        """Place the axis label and the offset beyond the labels of the ticks; return the boxes of these."""
        boxes = ticks.boxes(renderer)
        panel, dot, across = self.axes.bbox, renderer.points_to_pixels(1.0), 1 - ticks.along
        start = (panel.x0, panel.y0)[across] - dot * ticks.length
        first = min([start, *(box[across] for box in boxes)])
        place: Any = [*self.label.get_position()]
        place[across] = first - dot * self.labelpad
        self.label.set_position(place)
        self.offsetText.set_text(self.get_major_formatter().get_offset() if boxes else "")
        gap = dot * self.OFFSETTEXTPAD
        self.offsetText.set_y(panel.y1 + gap if across == 0 else first - gap)
        return boxes


def label_boxes(axis: Axis, renderer: Any) -> list[FloatArray]:
    """Return left, lower, right and upper edge in pixels of the labels at the ticks of any axis."""
    if isinstance(axis, _Light):
        return _Ticks(axis).boxes(renderer)
    texts = [text for text in axis.get_ticklabels() if text.get_visible() and text.get_text()]
    return [np.array(text.get_window_extent(renderer).extents) for text in texts]


class _Level(_Light, XAxis):
    """The x axis of a panel."""


class _Upright(_Light, YAxis):
    """The y axis of a panel."""


class Panel(Axes):
    """Axes whose ticks are drawn at once."""

    def _init_axis(self) -> None:
        # the hook of matplotlib's own example of custom projections; without it the axes would be the usual, slower ones
        self.xaxis = _Level(self, clear=False)
        self.yaxis = _Upright(self, clear=False)
        for spine in self.spines.values():
            spine.set_position(("outward", 0.0))  # else they wait for the first tick


class Sheet(Figure):
    """A figure of `Panel` axes."""

    def add_subplot(self, *args: Any, **options: Any) -> Any:
        """Add a panel, as `matplotlib.figure.Figure.add_subplot` does; `subplots` adds its panels here, too."""
        return super().add_subplot(*args, **{"axes_class": Panel, **options})
