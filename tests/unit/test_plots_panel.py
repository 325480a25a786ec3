"""Panels look as matplotlib's own axes do, without an object for each tick."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from explain_step.plots import layout, style
from explain_step.plots.panel import Panel


def names(axes):
    axes.set_yticks(range(3), ["a name", "on two\nlines", ""])
    axes.tick_params(axis="y", length=0, pad=5)
    axes.set_xlabel("below")
    axes.set_ylabel("left")


def grid(axes):
    axes.set_xlim(-3, 7.5)
    axes.grid(axis="x", color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=4)
    axes.set_title("title", loc="left")


def slanted(axes):
    axes.set_xticks(range(3), ["one", "two", "three"], rotation=38, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, pad=2)
    axes.spines["bottom"].set_visible(False)
    axes.set_title("above them")


def small(axes):
    axes.set_xlim(0, 1e-7)
    axes.set_ylim(3e9 + 1, 3e9 + 3)


def reversed_(axes):
    axes.set_ylim(5, -1)
    axes.set_xlim(0, 50_000)


def dates(axes):
    axes.set_xlim(15_000, 15_400)
    style.write_dates(axes, most=4)


def bare(axes):
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.set_ylabel("left")


def drawn(kind, prepare):
    """The pixels of a settled figure with one axes of a kind, and the box of its labels."""
    with style.clean_rc():
        figure = style.blank_figure(4.0, 2.5)
        axes = figure.add_subplot(axes_class=kind)
        axes.plot([0, 1, 2], [0, 2, 1], color=style.INK)
        prepare(axes)
        layout.write_large_ticks(figure)
        layout.settle(figure)
        figure.canvas.draw()
        box = axes.get_tightbbox(figure.canvas.get_renderer()).extents
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float), box, axes


CASES = [names, grid, slanted, small, reversed_, dates, bare]


@pytest.mark.parametrize("prepare", CASES)
def test_a_panel_looks_as_matplotlibs_axes(prepare):
    ours, box, axes = drawn(Panel, prepare)
    theirs, known, usual = drawn(Axes, prepare)
    np.testing.assert_allclose(box, known, atol=0.01)
    np.testing.assert_allclose(axes.get_position().bounds, usual.get_position().bounds)
    assert np.abs(ours - theirs).max() <= 40  # ends of grid lines


@pytest.mark.parametrize("prepare", CASES)
def test_no_tick_is_made(prepare):
    _, _, axes = drawn(Panel, prepare)
    assert type(axes.xaxis).__mro__[2].__name__ == "XAxis"
    assert not axes.xaxis.majorTicks
    assert not axes.yaxis.majorTicks
    assert not axes.xaxis.minorTicks
    assert not axes.yaxis.minorTicks


def test_labels_in_view_can_be_asked_for():
    _, _, axes = drawn(Panel, names)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a name", "on two\nlines", ""]
    axes.set_ylim(-0.5, 0.5)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a name"]
    axes.tick_params(axis="y", labelleft=False)
    assert axes.get_yticklabels() == []
    assert axes.yaxis.get_ticks_position() == "left"


def test_a_hidden_axis_has_no_box_and_no_ink():
    def hidden(axes):
        axes.xaxis.set_visible(False)
        axes.yaxis.set_visible(False)

    picture, _, axes = drawn(Panel, hidden)
    assert axes.xaxis.get_tightbbox() is None
    assert np.array_equal(picture, drawn(Axes, hidden)[0])


def test_shared_axes_write_their_labels_once():
    with style.clean_rc():
        figure = style.blank_figure(4.0, 2.5)
        left, right = figure.subplots(1, 2, sharey=True)
        left.set_yticks([0, 1], ["a", "b"])
        layout.settle(figure)
    assert isinstance(left, Panel)
    assert [text.get_text() for text in left.get_yticklabels()] == ["a", "b"]
    assert right.get_yticklabels() == []
