"""A drawn figure as PNG bytes: a palette takes a third of the size of full colour."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from explain_step.plots import layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

COLOURS = 128
WHITE = 0xFFFFFF
COMPRESSION = 5
"""Of zlib; level 8 takes three times as long for a tenth of the bytes."""


def png(figure: Figure) -> tuple[bytes, int, int]:
    """Return a figure as PNG bytes with a palette of at most `COLOURS` colours, and its width and height."""
    from explain_step.plots.canvas import Canvas

    canvas = Canvas(figure)
    layout.write_large_ticks(figure)
    layout.settle(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    picture = flat(np.asarray(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]
    small = io.BytesIO()
    picture.save(small, format="PNG", compress_level=COMPRESSION)
    return small.getvalue(), picture.width, picture.height


def flat(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return a picture (height, width, 4) with a palette; each colour that occurs is looked up once."""
    from PIL import Image

    packed = np.ascontiguousarray(pixels).view("<u4")[..., 0] & WHITE
    inked = packed != WHITE
    ink = packed[inked]
    colours = np.append(np.unique(ink), np.array(WHITE, dtype="<u4"))
    row = np.ascontiguousarray(colours.view(np.uint8).reshape(1, -1, 4)[..., :3])
    few = Image.fromarray(row).quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    places = np.asarray(few)[0]
    # a place for every colour that there is; of the memory only what occurs is touched
    table = np.empty(WHITE + 1, dtype=np.uint8)
    table[colours] = places
    flat = np.full(packed.shape, places[-1], dtype=np.uint8)
    flat[inked] = table[ink]
    found = Image.fromarray(flat)
    found.putpalette(few.getpalette() or [])
    return found
