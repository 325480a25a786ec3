"""Marks that come in numbers, each kind as one artist: an artist per bar takes most of the time of a figure of bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bars(
    axes: Axes,
    left: npt.ArrayLike,
    right: npt.ArrayLike,
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    *,
    colour: str,
) -> None:
    """Fill the boxes between these edges."""
    x0, x1, y0, y1 = np.broadcast_arrays(left, right, low, high)
    corners = np.array([[x0, y0], [x0, y1], [x1, y1], [x1, y0]], dtype=np.float64)
    filled(axes, np.moveaxis(corners, 2, 0), colours=colour)


def filled(axes: Axes, corners: Any, *, colours: str | Sequence[str], zorder: float = 1) -> None:
    """Fill polygons of shape (polygons, corners, 2)."""
    from matplotlib.collections import PolyCollection

    axes.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="none", zorder=zorder))
