from __future__ import annotations

import contextlib
import gc
import io
import re
import weakref

import matplotlib as mpl
import numpy as np
import pytest
from effect_kit import layout_faults
from PIL import Image

from explain_step import plots
from explain_step.plots import layout, style

HOSTILE = [
    "🚀 launch\nrate",
    "x" * 300,
    "$alpha$ and $",
    r"back\$lash$",
    "../../x",
    "<script>alert(1)</script>",
    "日本語の列",
    "percent % of_a_rather_long_column_name_in_snake_case",
    "",
    "\x00\u202e",
    "\ud800",
]


def drawn(text="name", *, value=1.0):
    figure, axes = style.new_figure(5.8, 2.0)
    axes.plot([0, value], [0, 1])
    axes.set_yticks([0, 1], [style.wrap(text), "other"])
    style.heading(figure, text)
    style.footnote(figure, text)
    return style.finish(figure, kind="importance", slug=style.slug(text), alt=text, title=text)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_drawn_whole_and_without_warnings(name):
    figure, axes = style.new_figure(5.8, 2.0)
    axes.set_yticks([0, 1], [style.wrap(name), "other"])
    style.heading(figure, style.shortened(name, 60))
    layout.settle(figure)
    assert layout_faults(figure) == []
    picture = drawn(style.shortened(name, 60))
    assert picture.png.startswith(b"\x89PNG")
    assert "\n" not in picture.alt


@pytest.mark.parametrize("name", HOSTILE)
def test_slugs_are_safe_file_names(name):
    assert re.fullmatch(r"[a-z0-9-]{8,49}", style.slug(name))


def test_slugs_keep_names_apart_that_look_alike():
    assert style.slug("a b") != style.slug("a-b")
    assert style.slug("a") == style.slug("a")


def test_names_that_shorten_to_the_same_text_stay_apart():
    long = ["x" * 100 + "1" + "y" * 100, "x" * 100 + "2" + "y" * 100]
    found = style.names(long, labels={})
    assert found[0] != found[1]
    assert style.names(["a", "a", "b"], labels={"b": "B"}) == ["a", "a", "B"]


@pytest.mark.parametrize("name", HOSTILE)
def test_wrapping_keeps_to_its_lines(name):
    lines = style.wrap(name, 16, lines=2).replace(r"\$", "$").splitlines()
    assert len(lines) <= 3
    assert all(len(line) <= 22 for line in lines)


def test_a_dollar_is_a_dollar():
    figure, axes = style.new_figure(4, 2)
    text = axes.text(0.5, 0.5, style.safe("$x$ costs $5"))
    figure.draw_without_rendering()
    assert text._preprocess_math(text.get_text()) == ("$x$ costs $5", False)


def test_same_figure_same_bytes_whatever_the_callers_settings():
    plain = drawn().png
    with mpl.rc_context(
        {"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 30, "text.color": "yellow"}
    ):
        assert drawn().png == plain
        assert mpl.rcParams["font.size"] == 30
    assert drawn(value=2.0).png != plain


def test_pictures_are_white_crisp_and_small():
    picture = drawn()
    image = Image.open(io.BytesIO(picture.png))
    assert image.size == (picture.width, picture.height) == (835, 288)
    assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    assert "Software" not in image.info
    assert len(picture.png) < 30_000


def test_the_ramp_runs_from_blue_to_red_and_from_light_to_dark():
    grey = [
        np.dot([int(style.ramp(t)[i : i + 2], 16) for i in (1, 3, 5)], [0.3, 0.59, 0.11]) for t in (0, 0.5, 1)
    ]
    assert grey[0] > grey[1] > grey[2]
    assert grey[0] - grey[2] > 60
    assert style.ramp(float("nan")) == style.GREY


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0312, "0.0312"),
        (-0.5, "\u22120.5"),
        (1234.5, "1,230"),
        (1e-9, "1.00e\u22129"),
        (float("nan"), "\u2013"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert style.number(value) == text


def test_rendering_nothing_draws_nothing():
    assert plots.render({}, labels={}) == ()


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_garbage_is_collected_after_a_figure_as_the_caller_has_it(collects, fails):
    class Node:
        """Refers to itself."""

    left, seen = [], []

    def job():
        seen.append(gc.isenabled())
        node = Node()
        node.own = node
        left.append(weakref.ref(node))
        if fails:
            raise KeyError

    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(KeyError) if fails else contextlib.nullcontext():
            style.drawn(job)
        assert seen == [False]
        assert gc.isenabled() is collects
        assert fails or (left[0]() is None) is collects
    finally:
        (gc.enable if before else gc.disable)()
