from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from explain_step.plots.canvas import Canvas, _drawn, _file, _font
from explain_step.plots.style import clean_rc

LEVEL = "capital_gain = 12,345 \u2212 caf\u00e9 \u2026"


def pixels(canvas, text, **options):
    """Draw one text in the middle of a white figure; return its pixels as (rows, columns, 3) and its box."""
    with clean_rc():
        figure = Figure(figsize=(4, 3), dpi=144)
        drawn = canvas(figure)
        line = figure.text(0.5, 0.5, text, **{"ha": "center", "va": "center", "fontsize": 8.5, **options})
        drawn.draw()
        box = line.get_window_extent(drawn.get_renderer())
    return np.asarray(drawn.buffer_rgba())[..., :3].astype(float), box


def ink(picture):
    return 1 - picture.mean(axis=2) / 255


def edges(picture):
    rows, columns = np.nonzero(ink(picture) > 0.1)
    return np.array([rows.min(), rows.max(), columns.min(), columns.max()])


@pytest.mark.parametrize(
    "options", [{}, {"fontweight": "bold"}, {"rotation": 90}, {"rotation": 90, "va": "top"}]
)
@pytest.mark.parametrize("ha", ["left", "center", "right"])
def test_a_line_stands_where_matplotlib_puts_it_and_is_as_dark(options, ha):
    ours, box = pixels(Canvas, LEVEL, ha=ha, **options)
    theirs, known = pixels(FigureCanvasAgg, LEVEL, ha=ha, **options)
    assert np.abs(edges(ours) - edges(theirs)).max() <= 4
    assert ink(ours).sum() == pytest.approx(ink(theirs).sum(), rel=0.15)
    np.testing.assert_allclose(box.extents, known.extents, atol=5)


def test_several_lines_stand_where_matplotlib_puts_them():
    ours, _ = pixels(Canvas, f"{LEVEL}\nagp\n\nx")
    theirs, _ = pixels(FigureCanvasAgg, f"{LEVEL}\nagp\n\nx")
    assert np.abs(edges(ours) - edges(theirs)).max() <= 4


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("slanted", {"rotation": 38}),
        ("$x^2$", {}),
        ("\u0434\u0430", {}),
        ("e\u0301", {}),
        ("", {}),
    ],
    ids=["slanted", "formula", "cyrillic", "combining", "empty"],
)
def test_what_pillow_may_shape_otherwise_stays_matplotlibs(text, options):
    ours, _ = pixels(Canvas, text, **options)
    theirs, _ = pixels(FigureCanvasAgg, text, **options)
    # older releases measure a sample line as well, so that a line may stand a pixel higher
    assert any(
        np.array_equal(np.roll(ours, (up, right), axis=(0, 1)), theirs)
        for up in (-1, 0, 1)
        for right in (-1, 0, 1)
    )


def test_colour_and_transparency_are_kept():
    red, _ = pixels(Canvas, "MMMM", color="#ff0000")
    assert red[..., 0].min() == 255
    assert red[..., 1].min() < 20
    for faint in ({"color": "#ff0000", "alpha": 0.5}, {"color": (1, 0, 0, 0.5)}):
        half, _ = pixels(Canvas, "MMMM", **faint)
        assert 100 < half[..., 1].min() < 160


def test_blank_text_leaves_no_ink():
    assert ink(pixels(Canvas, "   ")[0]).sum() == 0


def test_text_is_cut_where_matplotlib_cuts_it():
    def beside(canvas):
        with clean_rc():
            figure = Figure(figsize=(4, 3), dpi=144)
            drawn = canvas(figure)
            axes = figure.add_axes((0.25, 0.25, 0.5, 0.5))
            axes.set_axis_off()
            axes.text(0.9, 0.5, "MMMMMMMMMMMMMMM", clip_on=True)
            drawn.draw()
        return edges(np.asarray(drawn.buffer_rgba())[..., :3].astype(float))

    assert np.abs(beside(Canvas) - beside(FigureCanvasAgg)).max() <= 4


def test_a_line_is_drawn_once_and_cannot_be_changed():
    first, again = (_drawn("income", _font(_file(FontProperties()), 17.0)) for _ in range(2))
    assert first is again
    assert not first[2].flags.writeable
