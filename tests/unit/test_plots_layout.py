"""Panels keep their grid, labels get their room, and large numbers are written for readers."""

from __future__ import annotations

import numpy as np
import pytest
from effect_kit import layout_faults

from explain_step.plots import layout, picture, style
from explain_step.plots.breaking import broken


def grid(rows=2, columns=3, **ratios):
    figure = style.blank_figure(style.WIDTH, 4.0)
    panels = figure.subplots(rows, columns, squeeze=False, **ratios)
    style.heading(figure, "A heading that is long enough to need a second line, as some of them are " * 2)
    style.footnote(figure, "A footnote. " * 30)
    return figure, panels


def test_nothing_is_cut_and_panels_do_not_touch_their_neighbours():
    figure, panels = grid()
    for k, axes in enumerate(panels.flat):
        axes.set_yticks([0, 1], ["a name\non two lines" * (k == 0) or "b", "c"])
        axes.set_xlabel("x" * 12)
        axes.set_title("title")
    panels[0, 2].text(1.2, 0.5, "beside", transform=panels[0, 2].transAxes)
    with style.clean_rc():
        layout.settle(figure)
        assert layout_faults(figure) == []
    renderer = figure.canvas.get_renderer()
    boxes = [axes.get_tightbbox(renderer) for axes in panels.flat]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    touching = [(i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])]
    assert touching == []


def test_panels_keep_the_ratios_of_their_grid():
    figure, panels = grid(width_ratios=[3, 1, 1], height_ratios=[6, 1])
    layout.settle(figure)
    sizes = np.array([[a.get_position().bounds[2:] for a in row] for row in panels])
    assert np.allclose(sizes[0, :, 0] / sizes[0, 1, 0], [3, 1, 1])
    assert np.allclose(sizes[:, 0, 1] / sizes[1, 0, 1], [6, 1])
    assert np.allclose(sizes[0], [[w, sizes[0, 0, 1]] for w in sizes[1, :, 0]])


def test_a_label_that_speaks_for_several_panels_takes_no_width():
    def places(label):
        with style.clean_rc():
            figure, panels = grid(columns=4)
            panels[1, 1].set_xlabel(label, x=1.06, gid=layout.COMMON)
            layout.settle(figure)
            assert layout_faults(figure) == []
        return [axes.get_position().bounds[::2] for axes in panels.flat]

    assert np.allclose(
        places("short"), places("a name that reaches over both of the neighbours of its panel")
    )


@pytest.mark.parametrize(("low", "high"), [(-2_500_000, 0), (-0.005, 0.005)])
def test_ticks_are_left_out_until_their_labels_do_not_touch(low, high):
    with style.clean_rc():
        figure, panels = grid(columns=4, sharex=True)
        for axes in panels.flat:
            axes.set_xlim(low, high)
            axes.locator_params(axis="x", nbins=6)
        layout.write_large_ticks(figure)
        layout.settle(figure)
        assert layout_faults(figure) == []
    assert all(len(axes.get_xticks()) >= 2 for axes in panels.flat)


def test_names_at_ticks_are_never_left_out():
    with style.clean_rc():
        figure, axes = style.new_figure(3.0, 2.0)
        axes.set_xticks(range(9), [f"name {k}" for k in range(9)])
        layout.settle(figure)
    assert [t.get_text() for t in axes.get_xticklabels()] == [f"name {k}" for k in range(9)]


def test_labels_without_end_leave_some_room_for_the_panel():
    figure, axes = style.new_figure(3.0, 1.0)
    axes.set_yticks([0.5], ["x" * 80])
    layout.settle(figure)
    assert axes.get_position().width > 0.05


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((0, 40_000), ["0", "20,000", "40,000"]),
        ((-20_000, 20_000), ["\u221220,000", "0", "20,000"]),
        ((0, 20_000_000), ["0", "10M", "20M"]),
        ((0, 400), None),
        ((100_000, 100_002), None),
    ],
)
def test_large_ticks_have_separators(ends, ticks):
    figure, axes = style.new_figure(5.0, 2.0)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    if ticks:
        axes.set_xticks(np.linspace(*ends, 3))
    layout.write_large_ticks(figure)
    figure.draw_without_rendering()
    written = [t.get_text() for t in axes.get_xticklabels()]
    if ticks:
        assert written == ticks
    else:
        assert not any("," in t or "M" in t for t in written)
        assert len(set(written)) == len(written)


def test_names_given_by_hand_stay():
    figure, axes = style.new_figure(5.0, 2.0)
    axes.set_xlim(0, 50_000)
    axes.set_xticks([0, 50_000], ["none", "all"])
    layout.write_large_ticks(figure)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["none", "all"]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("gross_annual_income_before_tax_in_euros", ["gross_annual_", "\u2026tax_in_euros"]),
        ("a few plain words that go on for long", ["a few plain", "\u2026go on for long"]),
        ("customer.street.number", ["customer.street.", "number"]),
        ("x" * 40, ["xxxxxxxxxxxxxxxx", "xxxxx\u2026xxxxxxxxxx"]),
    ],
)
def test_names_break_where_their_parts_end(name, lines):
    assert broken(name, width=16, lines=2) == lines


def test_a_picture_keeps_its_colours():
    rng = np.random.default_rng(0)
    pixels = np.full((40, 50, 4), 255, dtype=np.uint8)
    pixels[:20, :30, :3] = rng.integers(0, 4, (20, 30, 3)) * 60
    flat = picture.flat(pixels)
    assert np.array_equal(np.asarray(flat.convert("RGB")), pixels[..., :3])
    white = np.full((3, 4, 4), 255, dtype=np.uint8)
    assert (np.asarray(picture.flat(white).convert("RGB")) == 255).all()
