"""Bars as one artist."""

from __future__ import annotations

import numpy as np

from explain_step.plots import marks, style


def test_bars_are_one_artist_where_single_ones_would_stand():
    def picture(draw):
        with style.clean_rc():
            figure, axes = style.new_figure(3.0, 2.0)
            draw(axes)
            axes.set(xlim=(-1, 5), ylim=(-1, 4))
            figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba()).astype(float), axes

    left, right, height = np.array([0.0, 1.3, 2.0]), np.array([1.0, 2.0, 4.5]), np.array([1.0, 3.0, 0.5])
    ours, axes = picture(lambda a: marks.bars(a, left, right, 0.0, height, colour=style.GREY))
    theirs, _ = picture(
        lambda a: a.bar(left, height, width=right - left, align="edge", color=style.GREY, linewidth=0)
    )
    assert len(axes.collections) == 1
    np.testing.assert_allclose(ours, theirs, atol=2)
