"""The look that all figures share: colours, canvas, safe names, numbers and deterministic PNG bytes.

Figures are designed for a column of 560 px: `WIDTH` inches at `DPI` dots stay crisp at one and a half times
that density, and the type stays readable at 560 px. Only matplotlib's object interface is used; the caller's
rc settings are set aside while a figure is drawn (`styled`) and come back unchanged.
"""

from __future__ import annotations

import gc
import hashlib
import math
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from explain_step import types
from explain_step.plots import layout
from explain_step.plots.breaking import broken, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#008bfb"
"""Low values, negative effects (the blue of the shap library)."""
RED = "#ff0051"
"""High values, positive effects (the red of the shap library)."""
INK = "#1f2933"
"""Text and main lines."""
GREY = "#6b7785"
"""Secondary text, whiskers and reference lines; 4.5:1 on white."""
LIGHT = "#c9d1d9"
"""Hairlines and quiet marks."""
FAINT = "#eef1f4"
"""Bands behind rows."""
ACCENT = "#3b5b92"
"""Structure: bars and curves that carry no direction; dark enough to differ from `LIGHT` in grey."""
LOW, MIDDLE, HIGH = "#57b6ff", "#9a4fc0", "#d3003f"
"""Ends and middle of the value ramp: blue to red, and light to dark, so that it also reads in grey."""

WIDTH = 5.8
DPI = 144
FONT = 8.5
SMALL = 7.5
MISSING_GLYPH = "\u25a1"

LOOKS = frozenset(
    [
        *("axes", "errorbar", "figure", "font", "grid", "hatch", "image", "legend", "lines", "markers"),
        *("mathtext", "patch", "path", "pcolor", "pcolormesh", "savefig", "scatter", "text"),
        *("xaxis", "xtick", "yaxis", "ytick"),
    ]
)
"""Families of rc settings that change how a figure looks."""

P = ParamSpec("P")
R = TypeVar("R")
Job = Callable[[], types.Figure]
"""One figure that can be drawn by whoever has time."""
_CLEAN: ContextVar[bool] = ContextVar("explain_step_clean_rc", default=False)


@contextmanager
def clean_rc() -> Iterator[None]:
    """Draw under matplotlib's defaults and this package's look; the caller's settings come back after."""
    if _CLEAN.get():  # setting them anew for every figure takes a twentieth of the drawing
        yield
        return
    import matplotlib as mpl

    own = {
        "font.family": ["DejaVu Sans"],
        "font.size": FONT,
        "axes.edgecolor": LIGHT,
        "axes.labelcolor": INK,
        "axes.labelsize": FONT,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "text.color": INK,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
    }
    looks = {key: value for key, value in mpl.rcParamsDefault.items() if key.split(".")[0] in LOOKS}
    settings: Any = {**looks, **own}
    with mpl.rc_context(settings):
        inside = _CLEAN.set(True)
        try:
            yield
        finally:
            _CLEAN.reset(inside)


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it draws under `clean_rc`."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with clean_rc():
            return function(*args, **kwargs)

    return run


def drawing(jobs: Callable[P, tuple[Job, ...]]) -> Callable[P, tuple[types.Figure, ...]]:
    """Return the function that draws every figure which ``jobs`` plans for the same arguments."""

    def draw(*args: P.args, **kwargs: P.kwargs) -> tuple[types.Figure, ...]:
        with clean_rc():
            return tuple(drawn(job) for job in jobs(*args, **kwargs))

    return draw


def drawn(job: Job) -> types.Figure:
    """Return the figure of ``job``; the garbage that it makes is collected once, not hundreds of times.

    The objects of a figure refer to each other and die together; each collection on the way would look at all of them and at
    what the caller has. Whether the caller collects is as before, also after an error.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return job()
    finally:
        if collects:
            gc.enable()
            gc.collect(0)


@styled
def new_figure(width_in: float = WIDTH, height_in: float = 3.2) -> tuple[Figure, Axes]:
    """Return a white figure and its one axes.

    Examples
    --------
    >>> figure, axes = new_figure(5.8, 3.0)
    >>> axes.figure is figure
    True
    """
    figure = blank_figure(width_in, height_in)
    return figure, figure.add_subplot()


@styled
def blank_figure(width_in: float = WIDTH, height_in: float = 3.2) -> Figure:
    """Return a white figure without axes; `explain_step.plots.layout.settle` gives them their place."""
    from explain_step.plots.canvas import Canvas
    from explain_step.plots.panel import Sheet

    figure = Sheet(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    Canvas(figure)
    return figure


@styled
def finish(figure: Figure, *, kind: str, slug: str, alt: str, title: str) -> types.Figure:
    """Render ``figure`` to PNG bytes that depend on nothing but its content.

    Parameters
    ----------
    figure : matplotlib Figure
    kind : str
        Section of the page.
    slug : str
        Safe part of the file name, from `slug`.
    alt : str
        The figure in words, with full names.
    title : str
        Plain title for the page.
    """
    from explain_step.plots import picture

    png, width, height = picture.png(figure)
    return types.Figure(
        kind=kind,
        slug=slug,
        png=png,
        alt=one_line(alt),
        width=width,
        height=height,
        title=one_line(title),
    )


def one_line(text: str) -> str:
    r"""Return ``text`` without line breaks, control or invisible direction characters.

    Examples
    --------
    >>> one_line("a\nb\x00c")
    'a b c'
    """
    kept = "".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp"} else c for c in text)
    kept = "".join(c for c in kept if unicodedata.category(c) not in {"Cf", "Cs"})
    # a no-break space stays, so that "deny = yes" is not torn apart
    return re.sub(r"[^\S\u00a0]+", " ", kept).strip()


def slug(name: str) -> str:
    """Return a file-name part for ``name``: at most 40 safe characters and a hash that keeps names apart.

    Examples
    --------
    >>> slug("../../x y")
    'x-y-e76b0dff'
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-")
    return f"{stem}-{digest}" if stem else digest


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def drawable(text: str) -> str:
    """Return ``text`` with what the font cannot draw replaced by a box, on one line.

    A name that is mostly boxes gets four characters of its hash, so that two such names stay apart.
    """
    line = one_line(text)
    drawn = "".join(c if ord(c) in _glyphs() else MISSING_GLYPH for c in line)
    drawn = re.sub(MISSING_GLYPH + "{4,}", MISSING_GLYPH * 3, drawn)
    if drawn.count(MISSING_GLYPH) * 2 > len(drawn) or not drawn:
        drawn += f" #{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:4]}"
    return drawn.strip()


def safe(text: str) -> str:
    r"""Return ``text`` so that matplotlib draws it literally: no mathtext, no missing glyphs, one line.

    Examples
    --------
    >>> print(safe("$x$"))
    \$x\$
    """
    return drawable(text).replace("$", r"\$")


def wrap(name: str, width: int = 24, *, lines: int = 2) -> str:
    """Return ``name`` for an axis: wrapped at ``width`` characters, shortened in the middle, safe to draw.

    Examples
    --------
    >>> wrap("short")
    'short'
    >>> wrap("a_rather_long_name_of_a_column", 16).splitlines()
    ['a_rather_long_', 'name_of_a_column']
    """
    return "\n".join(part.replace("$", r"\$") for part in broken(drawable(name), width=width, lines=lines))


def names(features: list[str], *, labels: Mapping[str, str], width: int = 24, lines: int = 2) -> list[str]:
    """Return the drawn names of ``features``; those that look alike when shortened get a hash piece."""
    drawn = [wrap(labels.get(f, f), width, lines=lines) for f in features]
    distinct = [wrap(labels.get(f, f), width, lines=lines) for f in dict.fromkeys(features)]
    seen = {name: distinct.count(name) for name in distinct}
    return [
        name
        if seen[name] == 1
        else f"{name} #{hashlib.sha256(f.encode('utf-8', 'surrogatepass')).hexdigest()[:4]}"
        for name, f in zip(drawn, features, strict=True)
    ]


def number(value: float, digits: int = 3) -> str:
    """Return a number for readers: significant digits, thousands separated, a true minus sign.

    Examples
    --------
    >>> [number(v) for v in (0.012345, 12345.6, -0.5, 0.0)]
    ['0.0123', '12,300', '\u22120.5', '0']
    """
    if not math.isfinite(value):
        return "\u2013"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e7 or size < 1e-4:
        text = f"{value:.{digits - 1}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    else:
        decimals = max(digits - 1 - math.floor(math.log10(size)), 0)
        text = f"{float(f'{value:.{digits - 1}e}'):,.{decimals}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "\u2212")


def value_name(value: float, digits: int = 3) -> str:
    """Return a number that names something, such as a year: whole ones in full, separated from 10,000 on.

    Examples
    --------
    >>> [value_name(v) for v in (2011.0, 0.012345, 1234567.0)]
    ['2011', '0.0123', '1,234,567']
    """
    text = number(value, 7 if value == round(value) else digits)
    return text.replace(",", "") if abs(value) < 10_000 else text


def day(x: float) -> str:
    """Return the date of a position on an axis of dates, which counts days since 1970.

    Examples
    --------
    >>> day(365.2)
    '1971-01-01'
    """
    return str(np.datetime64(0, "D") + np.timedelta64(round(x), "D"))


def write_dates(axes: Axes, *, most: int) -> None:
    """Write an x axis of days since 1970 as dates, with at most so many ticks."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=2, maxticks=most)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def ramp(position: float) -> str:
    """Return the colour of a value between low (0) and high (1); grey for NaN (no order).

    Examples
    --------
    >>> ramp(0.0) == LOW, ramp(1.0) == HIGH, ramp(float("nan")) == GREY
    (True, True, True)
    """
    if not math.isfinite(position):
        return GREY
    t = min(max(position, 0.0), 1.0)
    a, b, u = (LOW, MIDDLE, t * 2) if t <= 0.5 else (MIDDLE, HIGH, t * 2 - 1)
    mixed = (round(int(a[i : i + 2], 16) * (1 - u) + int(b[i : i + 2], 16) * u) for i in (1, 3, 5))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def paragraph(text: str, width: int) -> str:
    """Return ``text`` safe to draw and wrapped at ``width`` characters."""
    return "\n".join(textwrap.wrap(drawable(text), width)).replace("$", r"\$")


def heading(figure: Figure, text: str, *, names: Iterable[str] = ()) -> None:
    """Write a bold, left-aligned title above everything, inside the layout.

    ``names`` are names in the text, which stay apart also where the font has none of their letters.
    """
    for name in names:
        drawn = drawable(name)
        text = text.replace(name, drawn) if MISSING_GLYPH in drawn else text
    figure.suptitle(
        paragraph(text, 70),
        x=0.012,
        gid=layout.HEADING,
        ha="left",
        fontsize=FONT + 1,
        fontweight="bold",
        color=INK,
        linespacing=1.25,
    )


def footnote(figure: Figure, text: str) -> None:
    """Write the explained quantity and how to read the figure in small grey type below everything."""
    figure.supxlabel(
        paragraph(text, 108),
        x=0.012,
        gid=layout.FOOTNOTE,
        ha="left",
        fontsize=SMALL - 0.5,
        color=GREY,
        linespacing=1.3,
    )


SPACES = {"probability": "predicted probability", "margin": "margin (raw score)", "prediction": "prediction"}


def effect_words(quantity: Mapping[str, Any], output: str) -> str:
    r"""Return one explained output in words, from an artifact's ``meta["quantity"]``.

    Examples
    --------
    >>> effect_words({"output_space": "probability", "target": "deny"}, "yes")
    'predicted probability of deny\xa0=\xa0yes'
    >>> effect_words({"output_space": "probability"}, "1")
    'predicted probability of class 1'
    >>> effect_words({"output_space": "margin", "target": "lifetime"}, "lifetime")
    'margin (raw score) of lifetime'
    """
    words = SPACES.get(str(quantity.get("output_space")), "output")
    target = str(quantity.get("target") or "")
    if output.startswith("("):
        return f"{words} of {target}, mean over outputs" if target else f"{words}, mean over outputs"
    regression = quantity.get("output_space") == "prediction"
    if target == output or (
        regression and not target
    ):  # the output of a regression is named after its target
        return f"{words} of {output}"
    if regression:
        return f"{words} of {target}: {output}"
    alone = f"class {output}" if quantity.get("output_space") == "probability" else output
    return f"{words} of {target}\u00a0=\u00a0{output}" if target else f"{words} of {alone}"


def declared(quantity: Mapping[str, Any]) -> str:
    """Return how a quantity was made, for the small type under a figure."""
    kind = "exact" if quantity.get("exact") else "estimated"
    rows = f"{int(quantity.get('rows', 0)):,} rows explained"
    against = quantity.get("background", "the background")
    if quantity.get("feature_perturbation") == "correlation_dependent":
        kind = f"correlation-dependent, {kind}"
    return f"{rows}, against {against}; {kind} ({quantity.get('method', '')})"


def row_height(names_: list[str], *, one: float = 0.25, more: float = 0.13) -> float:
    """Return the height in inches of rows whose names take one or more lines."""
    return sum(one + more * name.count("\n") for name in names_)


def shortened(name: str, room: int) -> str:
    """Return ``name`` on one line in at most ``room`` characters, cut in the middle."""
    return shorten(one_line(name), room=room)
