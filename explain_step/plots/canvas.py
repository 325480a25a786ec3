"""A canvas that draws a line of text as one picture instead of glyph by glyph.

Half of the time of a figure with many labels was matplotlib's placing of single glyphs. Pillow, on which matplotlib depends,
draws a whole line from the same font file in a tenth of it. Lines that it would not shape alike stay matplotlib's: formulas,
slanted lines, and scripts whose letters join, stack or run from right to left.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

SIMPLE_SCRIPTS = 0x0300
"""Below are Latin letters and signs; combining marks and most other scripts come after."""
SIGNS = frozenset(
    "\u2212\u2026\u2013\u2014\u2018\u2019\u201c\u201d\u2248\u2264\u2265\u25a1\u2192\u2022\u202f\u2009"
)
"""Further single signs of the figures: minus, dashes, quotation marks, comparisons."""


class Renderer(RendererAgg):
    """Draws level and vertical lines of simple scripts by Pillow, everything else as matplotlib does."""

    def draw_text(  # noqa: PLR0917  the signature is matplotlib's
        self,
        gc: Any,
        x: float,
        y: float,
        s: str,
        prop: FontProperties,
        angle: float,
        ismath: Any = False,
        mtext: Any = None,
    ) -> None:
        """Draw a line whose baseline begins at pixel (x, y), y downwards."""
        if ismath or angle not in {0, 90} or not _simple(s):
            super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)  # type: ignore[no-untyped-call]
            return
        left, top, ink = _drawn(s, self._font(prop))
        if angle == 90:  # the line runs upwards
            ink, left, top = np.rot90(ink), top, -(left + ink.shape[1])
        if not ink.size:
            return
        picture = np.empty((*ink.shape, 4), dtype=np.uint8)
        colour = gc.get_rgb()
        picture[..., :3] = np.round(255 * np.asarray(colour[:3]))
        picture[..., 3] = np.round(ink * (gc.get_alpha() if gc.get_forced_alpha() else colour[3]))
        bottom = self.height - (round(y) + top + len(ink))
        self.draw_image(gc, round(x) + left, bottom, picture[::-1])

    def get_text_width_height_descent(
        self, s: str, prop: FontProperties, ismath: Any
    ) -> tuple[float, float, float]:
        """Return the size of a line in pixels, and how much of its height is below the baseline."""
        if ismath or not _simple(s):
            size: tuple[float, float, float] = super().get_text_width_height_descent(s, prop, ismath)  # type: ignore[no-untyped-call]
            return size
        left, top, right, bottom = _box(s, self._font(prop))
        return float(max(right, 0) - min(left, 0)), float(max(bottom, 0) - min(top, 0)), float(max(bottom, 0))

    def _font(self, prop: FontProperties) -> ImageFont.FreeTypeFont:
        return _font(_file(prop), self.points_to_pixels(prop.get_size_in_points()))  # type: ignore[no-untyped-call]


class Canvas(FigureCanvasAgg):
    """A canvas with `Renderer`."""

    def get_renderer(self) -> Renderer:
        """Return the renderer of the figure's size and density."""
        width, height, dpi = *(int(side) for side in self.figure.bbox.size), self.figure.dpi
        known = getattr(self, "renderer", None)
        if isinstance(known, Renderer) and (known.width, known.height, known.dpi) == (width, height, dpi):
            return known
        self.renderer: Renderer = Renderer(width, height, dpi)  # type: ignore[no-untyped-call]
        return self.renderer


def _simple(line: str) -> bool:
    return all(ord(c) < SIMPLE_SCRIPTS or c in SIGNS for c in line)


@lru_cache(maxsize=512)
def _box(line: str, font: ImageFont.FreeTypeFont) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom edge of a line's ink from the start of its baseline, y downwards."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(line, anchor="ls"))
    return left, top, right, bottom


@lru_cache(maxsize=512)
def _drawn(line: str, font: ImageFont.FreeTypeFont) -> tuple[int, int, npt.NDArray[np.uint8]]:
    """Return left and top edge of a line's ink, and the ink: 0 to 255, of shape (rows, columns)."""
    left, top, right, bottom = _box(line, font)
    picture = Image.new("L", (max(right - left, 0), max(bottom - top, 0)))
    ImageDraw.Draw(picture).text((-left, -top), line, fill=255, font=font, anchor="ls")
    return left, top, np.asarray(picture)  # read-only: names and numbers come again in other figures


@lru_cache(maxsize=64)
def _font(file: str, pixels: float) -> ImageFont.FreeTypeFont:
    # not the shaping library that some machines have: figures are the same with and without it
    return ImageFont.truetype(file, pixels, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=64)
def _file(prop: FontProperties) -> str:
    return findfont(prop)
