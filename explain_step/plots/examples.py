"""Waterfalls: how one row's prediction comes about, from the background's average to the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explain_step.plots import marks, style
from explain_step.types import Artifact, Figure, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = 10
TITLES = {
    "correct": "A typical correct prediction",
    "incorrect": "A typical wrong prediction",
    "borderline": "A close call",
    "largest_error": "One of the largest errors",
    "prototype": "A prototype",
}
EDGE = "An error on the edge of being too large"
"""What a borderline row of a regression is: no class is nearly another one."""
HALF = 0.34
"""Half the height of a bar."""
CHARACTER, LABEL_GAP = 0.0195, 0.01
"""Shares of the axis that one character of a number beside a bar needs, and its distances to bar and names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waterfall:
    """The bars of one example and output, the strongest first."""

    names: list[str]
    effects: FloatArray
    errors: FloatArray
    base: float
    prediction: float

    @property
    def starts(self) -> FloatArray:
        """Where each bar starts: the weakest one at the base value."""
        upward = self.effects[::-1]
        return np.asarray((self.base + np.r_[0.0, np.cumsum(upward)[:-1]])[::-1], dtype=np.float64)

    @property
    def halves(self) -> FloatArray:
        """Half the length of each Monte Carlo interval; 0 where there is none."""
        return np.asarray(1.96 * np.nan_to_num(self.errors, nan=0.0, posinf=0.0), dtype=np.float64)


def jobs(artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str]) -> tuple[style.Job, ...]:
    """Plan one waterfall per example, for its first output (of a classifier: the predicted class)."""
    artifact = artifacts.get("examples")
    if artifact is None or artifact.table.empty:
        return ()
    quantity = artifact.meta.get("quantity", {})
    rounded = str(artifact.meta.get("privacy", "")).startswith("strict")
    groups = (rows for _, rows in artifact.table.groupby("example", sort=False))
    firsts = (rows[rows["output"] == rows["output"].iloc[0]] for rows in groups)
    return tuple(
        partial(_waterfall_figure, rows, quantity=quantity, labels=labels, rounded=rounded) for rows in firsts
    )


draw = style.drawing(jobs)


def _waterfall_figure(
    rows: pd.DataFrame, *, quantity: Mapping[str, Any], labels: Mapping[str, str], rounded: bool
) -> Figure:
    first = rows.iloc[0]
    fall = _waterfall(rows, labels=labels)
    lines = sum(1 + name.count("\n") for name in fall.names)
    figure, axes = style.new_figure(style.WIDTH, 1.55 + 0.15 * lines + 0.17 * len(fall.names))
    _bars(axes, fall)
    _ends(axes, fall)
    phrase = style.effect_words(quantity, str(first["output"]))
    amount = quantity.get("output_space") == "prediction"
    title = f"{_title(first, amount=amount)}: {_outcome(first, amount=amount)}"
    answers = {str(first[c]) for c in ("y_pred", "y_true") if pd.notna(first[c])}
    style.heading(figure, title, names=sorted(answers, key=len, reverse=True))
    style.footnote(figure, _note(fall, phrase=phrase, quantity=quantity, rounded=rounded))
    return style.finish(
        figure,
        kind="examples",
        slug=f"{first['example']}_{style.slug(str(first['output']))}",
        alt=f"{title}. {_alt(rows, phrase=phrase, labels=labels)}",
        title=title,
    )


def _waterfall(rows: pd.DataFrame, *, labels: Mapping[str, str]) -> _Waterfall:
    effects = rows["shap"].to_numpy(dtype=np.float64)
    errors = rows["standard_error"].to_numpy(dtype=np.float64)
    order = np.argsort(-np.abs(effects), kind="stable")
    shown = order if len(order) <= BARS else order[: BARS - 1]
    rest = order[len(shown) :]
    pairs = list(zip(rows["feature"], rows["feature_value"], strict=True))
    names = [_name(*pairs[int(i)], labels=labels) for i in shown]
    sizes = effects[shown]
    spread = errors[shown]
    if len(rest):
        names.append(f"{len(rest)} others")
        sizes = np.r_[sizes, effects[rest].sum()]
        spread = np.r_[spread, np.nan]
    first = rows.iloc[0]
    return _Waterfall(
        names=names,
        effects=sizes,
        errors=spread,
        base=float(first["base_value"]),
        prediction=float(first["prediction"]),
    )


def _name(feature: str, value: object, *, labels: Mapping[str, str]) -> str:
    """Return "feature = value" in at most two lines."""
    name = style.wrap(labels.get(feature, feature), 26, lines=1)
    value = style.wrap(_value(str(value)), 26, lines=1)
    joined = f"{name} = {value}"
    return joined if len(joined) <= 28 else f"{name}\n= {value}"


def _value(text: str, digits: int = 4) -> str:
    """Shorten a number to some significant digits; anything else stays."""
    try:
        number = float(text)
    except ValueError:
        return text
    whole = number == int(number) if np.isfinite(number) else False
    return text if whole and abs(number) < 1e7 else style.number(number, digits)


def _bars(axes: Axes, fall: _Waterfall) -> None:
    count = len(fall.names)
    decimals = _decimals(fall.effects)
    texts = [_signed(float(effect), decimals) for effect in fall.effects]
    room = LABEL_GAP + CHARACTER * max(map(len, texts))
    low, high = _limits(fall, room=room)
    span = high - low
    lanes = np.arange(count - 1, -1, -1)
    ends = fall.starts + fall.effects
    blunt = ends - np.minimum(0.012 * span, np.abs(fall.effects)) * np.sign(fall.effects)
    x = np.stack([fall.starts, blunt, ends, blunt, fall.starts], axis=1)
    y = lanes[:, None] + HALF * np.array([-1, -1, 0, 1, 1])
    colours = [style.RED if effect > 0 else style.BLUE for effect in fall.effects]
    marks.filled(axes, np.stack([x, y], axis=2), colours=colours, zorder=3)
    half = fall.halves
    sure = half > 0
    axes.hlines(
        lanes[sure], (ends - half)[sure], (ends + half)[sure], color=style.INK, linewidth=0.9, zorder=5
    )
    for i, (start, end) in enumerate(zip(fall.starts, ends, strict=True)):
        _number(axes, start, end, lanes[i], half=float(half[i]), text=texts[i], room=room * span)
    axes.vlines(
        fall.starts[:-1], lanes[1:] + HALF, lanes[:-1] - HALF, color=style.LIGHT, linewidth=0.8, zorder=2
    )
    axes.set_xlim(low, high)
    axes.set_ylim(-1.15, count + 0.1)
    axes.set_yticks(range(count), fall.names[::-1])
    axes.tick_params(axis="y", length=0, pad=5)
    axes.locator_params(axis="x", nbins=6)
    axes.spines["left"].set_visible(False)


def _limits(fall: _Waterfall, *, room: float) -> tuple[float, float]:
    """Return axis limits with room (a share of the axis) for a number on either side."""
    tips = fall.starts + fall.effects
    ends = np.r_[fall.starts, tips - fall.halves, tips + fall.halves, fall.base, fall.prediction]
    low, high = float(ends.min()), float(ends.max())
    span = max(high - low, 1e-9 * max(abs(low), abs(high))) or 1.0
    beside = span * room / (1 - 2 * room)
    return low - beside, high + beside


def _number(axes: Axes, start: float, end: float, y: float, *, half: float, text: str, room: float) -> None:
    """Write the contribution into its bar, or beyond it where it has no room beside the whisker."""
    effect = end - start
    inside = abs(effect) - half > room
    side = 1 if effect >= 0 else -1
    place = (start + end - side * half) / 2 if inside else end + side * (half + 0.06 * room)
    axes.text(
        place,
        y,
        text,
        ha="center" if inside else ("left" if side > 0 else "right"),
        va="center_baseline",
        fontsize=style.SMALL,
        color="white" if inside else style.INK,
        fontweight="bold" if inside else "normal",
        zorder=6,
    )


def _decimals(effects: FloatArray) -> int:
    """Return decimals for all numbers of a figure: three digits for the largest one (below 0: tens, …)."""
    largest = float(np.abs(effects).max(initial=0.0))
    if not largest > 0:
        return 0
    decimals = int(np.clip(2 - np.floor(np.log10(largest)), -9, 12))
    # values that were rounded for privacy get no zeros that nobody knows
    while decimals > 0 and np.allclose(np.round(effects, decimals - 1), effects, rtol=0, atol=1e-9 * largest):
        decimals -= 1
    return decimals


def _signed(value: float, decimals: int) -> str:
    text = f"{round(value, decimals):+,.{max(decimals, 0)}f}".replace("-", "\u2212")
    return "\u2248 0" if not text.strip("+\u22120.,") else text


def _ends(axes: Axes, fall: _Waterfall) -> None:
    """Mark the average below the bars and the model's answer above them."""
    count = len(fall.names)
    line: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9, "linestyle": (0, (3, 2)), "zorder": 1}
    axes.plot([fall.base, fall.base], [-0.55, HALF], **line)
    axes.plot([fall.prediction, fall.prediction], [count - 1 - HALF, count - 0.45], **line)
    low, high = axes.get_xlim()
    for value, y, text, va in (
        (fall.base, -0.6, f"E[f(x)] = {style.number(fall.base)} (average)", "top"),
        (fall.prediction, count - 0.4, f"f(x) = {style.number(fall.prediction)}", "bottom"),
    ):
        share = (value - low) / (high - low)
        align = "left" if share < 0.25 else "right" if share > 0.75 else "center"
        axes.text(value, y, text, ha=align, va=va, fontsize=style.SMALL, color=style.INK)


# ------------------------------------------------------------------------------------------ words


def _title(first: pd.Series[Any], *, amount: bool) -> str:
    kind = str(first["kind"])
    title = EDGE if amount and kind == "borderline" else TITLES.get(kind, kind)
    share = first.get("share")
    return f"{title} (nearest to {share:.0%} of rows)" if share is not None and pd.notna(share) else title


def _outcome(first: pd.Series[Any], *, amount: bool) -> str:
    """Return "predicted no, truth yes", as far as these are known; amounts (no class labels) are rounded."""
    said = []
    if pd.notna(first["y_pred"]):
        said.append(f"predicted {_answer(str(first['y_pred']), amount=amount)}")
    if pd.notna(first["y_true"]):
        said.append(f"truth {_answer(str(first['y_true']), amount=amount)}")
    if not said:
        said.append(style.number(float(first["prediction"])))
    row = style.one_line(str(first["row_id"])) if pd.notna(first["row_id"]) else ""
    return ", ".join(said) + (f" (row\u00a0{row[:40]})" if row else "")


def _answer(text: str, *, amount: bool) -> str:
    try:
        return style.number(float(text)) if amount else _value(text, 3)
    except ValueError:  # a range, where privacy asks for it
        return text


def _note(fall: _Waterfall, *, phrase: str, quantity: Mapping[str, Any], rounded: bool) -> str:
    rough = " Numbers are rounded for privacy and add up roughly." if rounded else ""
    whisker = " Thin lines: 95% Monte Carlo interval." if np.isfinite(fall.errors).any() else ""
    return (
        f"From the average over the background to this row's {phrase}, f(x). Red raises it, blue lowers "
        f"it.{rough}{whisker} {style.declared(quantity)[:1].upper()}{style.declared(quantity)[1:]}."
    )


def _alt(rows: pd.DataFrame, *, phrase: str, labels: Mapping[str, str]) -> str:
    first = rows.iloc[0]
    order = np.argsort(-np.abs(rows["shap"].to_numpy(dtype=np.float64)), kind="stable")[: BARS - 1]
    parts = []
    said = list(zip(rows["feature"], rows["feature_value"], rows["shap"], strict=True))
    for feature, value, effect in (said[int(i)] for i in order):
        name = labels.get(feature, feature)
        parts.append(f"{name} = {_value(str(value))}: {style.number(float(effect), 2)}")
    more = f" and {len(rows) - len(parts)} others" if len(rows) > len(parts) else ""
    return (
        f"Waterfall of the {phrase}, from the average {style.number(float(first['base_value']))} to "
        f"{style.number(float(first['prediction']))}: {'; '.join(parts)}{more}."
    )
