"""Figures of dependence: one per feature (attributions, density, PDP and ALE), and interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explain_step.plots import interactions, layout, marks, style
from explain_step.types import Artifact, Figure, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

OUTPUTS = 4
LONG = 10_000.0
FEW = 7
"""A numeric column with at most this many values is drawn like levels: dots with intervals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """One feature's table rows and how they are shown."""

    table: pd.DataFrame
    curves: Mapping[tuple[str, str], pd.DataFrame]
    points: pd.DataFrame | None
    feature: str
    name: str
    meta: Mapping[str, Any]
    outputs: tuple[str, ...]
    total_outputs: int
    quantity: Mapping[str, Any]

    def curve(self, name: str, output: str) -> pd.DataFrame:
        """Return one curve of one output; without rows where there is none."""
        found = self.curves.get((name, output))
        return self.table.iloc[:0] if found is None else found


def jobs(artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str]) -> tuple[style.Job, ...]:
    """Plan one figure per feature, then the interactions.

    Parameters
    ----------
    artifacts : mapping of str to Artifact
        ``dependence``; ``dependence_points``, ``interactions`` and ``interaction_surface`` where present.
    labels : mapping of str to str
        Reader names of features.
    """
    found: list[style.Job] = []
    if "dependence" in artifacts:
        main = artifacts["dependence"]
        points = artifacts["dependence_points"].table if "dependence_points" in artifacts else None
        features = [str(f) for f in dict.fromkeys(main.table["feature"])]
        found += [partial(_figure, _view(main, points, feature=f, labels=labels)) for f in features]
    return (*found, *interactions.jobs(artifacts, labels=labels))


draw = style.drawing(jobs)


def _view(main: Artifact, points: pd.DataFrame | None, *, feature: str, labels: Mapping[str, str]) -> _View:
    table = main.table[main.table["feature"] == feature]
    outputs = list(dict.fromkeys(table["output"]))
    mine = None if points is None else points[points["feature"] == feature]
    curves = {(str(c), str(o)): rows for (c, o), rows in table.groupby(["curve", "output"], sort=False)}
    return _View(
        table=table,
        curves=curves,
        points=None if mine is None or mine.empty else mine,
        feature=feature,
        name=labels.get(feature, feature),
        meta=main.meta.get("features", {}).get(feature, {}),
        outputs=tuple(outputs[:OUTPUTS]),
        total_outputs=len(outputs),
        quantity=main.meta["quantity"],
    )


def _figure(view: _View) -> Figure:
    numeric = view.meta.get("kind") != "levels" and _distinct(view) > FEW
    figure = _curves(view) if numeric else _levels(view)
    what = "the length of " if _is_text(view) else ""
    name = style.shortened(view.name, 60)
    title = f"How the prediction depends on {what}{name}"
    style.heading(figure, title, names=[name])
    style.footnote(figure, _note(view, numeric=numeric))
    return style.finish(
        figure, kind="dependence", slug=style.slug(view.feature), title=title, alt=_alt(view, numeric=numeric)
    )


def _is_text(view: _View) -> bool:
    """Return whether the levels are ranges of a free text's length, which have attributions only."""
    return "by" in view.meta


def _distinct(view: _View) -> int:
    shap = view.curve("shap", view.outputs[0])
    return len(shap) if view.meta.get("discrete") else FEW + 1


def _note(view: _View, *, numeric: bool) -> str:
    if numeric:
        text = "Line and band: mean SHAP value of the rows in a bin, 95% interval. "
        text += "Dots: single rows. " if view.points is not None else ""
        blank = view.curve("shap", view.outputs[0])["x"].isna()
        lost = float(view.curve("shap", view.outputs[0]).loc[blank, "count"].sum())
        rows = "row" if lost == 1 else f"{lost:,.0f} rows"
        text += f"Diamond at the right edge: the {rows} without a value. " if lost else ""
        text += "Right: " if len(view.outputs) == 1 else "Below: "
        text += "partial dependence (solid, band), ALE (dashed, moved to the same level)"
        text += ", single rows (grey). " if (view.table["curve"] == "ice").any() else ". "
        text += "Bottom: where the rows are"
        text += " (beyond the axis: the outer 1%). " if _cut(view) else ". "
    elif _is_text(view):
        text = f"Dots: mean SHAP value by {view.meta['by']}, 95% intervals; n: rows. Free text has no partial dependence. "
    else:
        text = "Dots: mean SHAP value and partial dependence per level with 95% intervals; n: rows. "
    if view.total_outputs > len(view.outputs):
        text += f"The first {len(view.outputs)} of {view.total_outputs} outputs; the table has all. "
    return text + style.declared(view.quantity) + "."


def _cut(view: _View) -> bool:
    """Return whether the drawn axis ends inside the grid."""
    rows, pdp = view.curve("density", view.outputs[0]), view.curve("pdp", view.outputs[0])
    return bool(pdp["x"].min() < rows["x_low"].min() or pdp["x"].max() > rows["x_high"].max())


def _curves(view: _View) -> Canvas:
    k = len(view.outputs)
    # targets of a regression have units of their own
    shared = view.quantity.get("output_space") != "prediction"
    if k == 1:
        figure = style.blank_figure(style.WIDTH, 3.35)
        axes = figure.subplots(2, 2, height_ratios=[6, 1], sharex=True, squeeze=False)
        pairs = [(axes[0, 0], axes[0, 1])]
        strips = list(axes[1])
    else:
        figure = style.blank_figure(style.WIDTH, 4.7)
        rows: Any = "row" if shared else False
        axes = figure.subplots(3, k, height_ratios=[6, 6, 1], sharex=True, sharey=rows, squeeze=False)
        pairs = [(axes[0, i], axes[1, i]) for i in range(k)]
        strips = list(axes[2])
    sights: list[tuple[float, float]] = []
    for output, (upper, lower) in zip(view.outputs, pairs, strict=True):
        _attributions(upper, view, output)
        sights = [*(sights if shared else []), _predictions(lower, view, output)]
        lower.set_ylim(min(low for low, _ in sights), max(high for _, high in sights))
        if k > 1:
            upper.set_title(style.wrap(output, 20), fontsize=style.FONT, color=style.INK)
    for strip in strips:
        _density(strip, view, narrow=k > 1)
    _name_axes(figure, view, pairs=pairs, strips=strips)
    return figure


def _name_axes(figure: Canvas, view: _View, *, pairs: list[tuple[Axes, Axes]], strips: list[Axes]) -> None:
    words = style.SPACES.get(str(view.quantity.get("output_space")), "output")
    if len(pairs) == 1:
        full = style.effect_words(view.quantity, view.outputs[0])
        for axes, text in zip(pairs[0], ("SHAP value", words), strict=True):
            axes.set_title(
                style.paragraph(f"{text}" if text == "SHAP value" else full, 44),
                loc="left",
                fontsize=style.SMALL,
                color=style.GREY,
            )
        for strip in strips:
            strip.set_xlabel(style.wrap(view.name, 32))
        return
    pairs[0][0].set_ylabel("SHAP value")
    pairs[0][1].set_ylabel(words)
    middle, even = (len(strips) - 1) // 2, len(strips) % 2 == 0
    strips[middle].set_xlabel(style.wrap(view.name, 44), x=1.06 if even else 0.5, gid=layout.COMMON)


def _attributions(axes: Axes, view: _View, output: str) -> None:
    shap = view.curve("shap", output)
    on, off = shap[shap["x"].notna()], shap[shap["x"].isna()]
    if view.points is not None:
        mine = view.points[view.points["output"] == output]
        axes.scatter(mine["x"], mine["shap"], s=3.5, color=style.LIGHT, linewidths=0, zorder=1)
    axes.axhline(0, color=style.GREY, linewidth=0.7, zorder=1.5)
    axes.fill_between(
        on["x"], on["ci_low"], on["ci_high"], color=style.ACCENT, alpha=0.28, linewidth=0, zorder=2
    )
    axes.plot(on["x"], on["value"], color=style.ACCENT, linewidth=1.6, zorder=3, marker="o", markersize=2.2)
    _missing(axes, off, at=_ends(view)[2])
    _plain(axes)


def _missing(axes: Axes, off: pd.DataFrame, *, at: float) -> None:
    """Mark the mean of rows without a value in a lane of its own at the right, off the curve."""
    if off.empty:
        return
    row = off.iloc[0]
    error = np.array([[row["value"] - row["ci_low"]], [row["ci_high"] - row["value"]]])
    axes.errorbar([at], [row["value"]], yerr=np.nan_to_num(error), fmt="D", **_marks())


def _ends(view: _View) -> tuple[float, float, float]:
    """Return the ends of the x axis, and the place of rows without a value (the axis has a lane for them)."""
    rows = view.curve("density", view.outputs[0])
    low, high = float(rows["x_low"].min()), float(rows["x_high"].max())
    span = high - low
    lane = 0.12 if view.curve("shap", view.outputs[0])["x"].isna().any() else 0.02
    return low - 0.02 * span, high + lane * span, high + 0.07 * span


def _marks() -> dict[str, Any]:
    return {
        "color": style.INK,
        "markerfacecolor": "white",
        "markersize": 4.5,
        "elinewidth": 1.0,
        "capsize": 2.0,
        "zorder": 5,
    }


def _predictions(axes: Axes, view: _View, output: str) -> tuple[float, float]:
    """Draw PDP, ALE and single rows; return the y limits that show them."""
    pdp, ale = view.curve("pdp", output), view.curve("ale", output)
    axes.plot(*_lines(view.curve("ice", output)), color=style.LIGHT, linewidth=0.6, zorder=1)
    axes.fill_between(
        pdp["x"], pdp["ci_low"], pdp["ci_high"], color=style.INK, alpha=0.14, linewidth=0, zorder=2
    )
    axes.plot(pdp["x"], pdp["value"], color=style.INK, linewidth=1.6, zorder=3)
    if len(ale):
        level = _level(pdp)
        axes.plot(
            ale["x"], ale["value"] + level, color=style.ACCENT, linewidth=1.4, linestyle=(0, (4, 2)), zorder=4
        )
    _plain(axes)
    return _sight(pdp, ale, view.curve("ice", output))


def _lines(ice: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Return x and y of single rows' lines, one after the other with a gap between."""
    lines, _ = pd.factorize(ice["line"])
    order = np.argsort(lines, kind="stable")
    gaps = np.flatnonzero(np.diff(lines[order])) + 1
    whole = np.insert(ice[["x", "value"]].to_numpy(dtype=np.float64)[order], gaps, np.nan, axis=0)
    return whole[:, 0], whole[:, 1]


def _level(pdp: pd.DataFrame) -> float:
    """Return the height at which the centred ALE is drawn: the mean of the PDP over the rows."""
    weight = pdp["count"].to_numpy()
    return float(np.average(pdp["value"], weights=weight if weight.sum() > 0 else None))


def _sight(pdp: pd.DataFrame, ale: pd.DataFrame, ice: pd.DataFrame) -> tuple[float, float]:
    """Return y limits: the curves in full, single rows' lines as far as four times the curves' own range."""
    level = _level(pdp)
    curves = np.concatenate([pdp["ci_low"], pdp["ci_high"], ale["value"] + level])
    low, high = float(np.nanmin(curves)), float(np.nanmax(curves))
    room = max(high - low, 1e-9 * abs(high)) or 1.0
    if len(ice):
        low = max(min(low, float(ice["value"].min())), low - 1.5 * room)
        high = min(max(high, float(ice["value"].max())), high + 1.5 * room)
    pad = 0.05 * max(high - low, room)
    return low - pad, high + pad


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=5)
    axes.tick_params(axis="x", length=0, labelbottom=False)


def _density(axes: Axes, view: _View, *, narrow: bool) -> None:
    rows = view.curve("density", view.outputs[0])
    marks.bars(axes, rows["x_low"], rows["x_high"], 0.0, rows["count"], colour=style.GREY)
    axes.set_ylim(0, 1.05 * float(rows["count"].max()) or 1.0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(*_ends(view)[:2])
    if view.meta.get("kind") == "datetime":
        style.write_dates(axes, most=3 if narrow else 5)
    else:
        ends = rows[["x_low", "x_high"]].abs().to_numpy()
        long = float(ends.max()) >= LONG  # labels with separators would touch
        axes.locator_params(axis="x", nbins=(2 if long else 3) if narrow else 4 if long else 6)


def _levels(view: _View) -> Canvas:
    """Draw one lane per level: attribution left, prediction right, a pair of panels per output."""
    first = view.curve("shap", view.outputs[0])
    order = _lane_order(view, first)
    counts = [float(first.iloc[i]["count"]) for i in order]
    texts = [_level_name(first.iloc[i]) for i in order]
    names = [f"{style.wrap(t, 20)}  (n\u00a0=\u00a0{c:,.0f})" for t, c in zip(texts, counts, strict=True)]
    k = len(view.outputs)
    figure = style.blank_figure(style.WIDTH, 1.5 + style.row_height(names, one=0.27))
    panels = 2 if k == 1 and not _is_text(view) else k
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    for i, output in enumerate(view.outputs):
        shap = view.curve("shap", output).iloc[order]
        _lane_dots(axes[i], shap, colour=style.ACCENT, zero=True)
        axes[i].set_xlabel("SHAP value")
        axes[i].locator_params(axis="x", nbins=4 if k < 3 else 2)
        if k > 1:
            axes[i].set_title(style.wrap(output, 20), fontsize=style.FONT, color=style.INK)
    if panels > k:
        pdp = _matched(view.curve("pdp", view.outputs[0]), first.iloc[order])
        _lane_dots(axes[1], pdp, colour=style.INK, zero=False)
        words = style.effect_words(view.quantity, view.outputs[0])
        axes[1].set_xlabel(style.paragraph(words, 34))
    axes[0].set_yticks(np.arange(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _lane_order(view: _View, shap: pd.DataFrame) -> list[int]:
    """Return the lanes from the top: natural order where there is one, else by effect; pooled levels last."""
    if view.meta.get("ordered"):
        return list(range(len(shap)))
    last = shap["level"].isin(["other levels", "(missing)"]).to_numpy()
    return [int(i) for i in np.lexsort((-shap["value"].to_numpy(), last))]


def _level_name(row: pd.Series[Any]) -> str:
    level = row["level"]
    return str(level) if isinstance(level, str) else style.value_name(float(row["x"]), 6)


def _matched(pdp: pd.DataFrame, shap: pd.DataFrame) -> pd.DataFrame:
    """Return the PDP in the lanes of the attributions; a lane without one is empty."""
    return pdp.drop_duplicates("x").set_index("x").reindex(shap["x"].to_numpy()).reset_index()


def _lane_dots(axes: Axes, rows: pd.DataFrame, *, colour: str, zero: bool) -> None:
    y = np.arange(len(rows), dtype=np.float64)
    if zero:
        axes.axvline(0, color=style.GREY, linewidth=0.7, zorder=1)
    axes.hlines(y, rows["ci_low"], rows["ci_high"], color=colour, linewidth=1.4, zorder=2)
    axes.plot(rows["value"], y, linestyle="none", marker="o", markersize=5.5, color=colour, zorder=3)
    axes.grid(axis="x", color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=4)


def _alt(view: _View, *, numeric: bool) -> str:
    shap = view.curve("shap", view.outputs[0])
    words = style.effect_words(view.quantity, view.outputs[0])
    if not numeric:
        rows = [shap.iloc[i] for i in _lane_order(view, shap)][:12]
        listed = "; ".join(f"{_level_name(r)}: {style.number(float(r['value']))}" for r in rows)
        per = f"by {view.meta['by']} of" if _is_text(view) else "per level of"
        return f"Mean SHAP values on the {words} {per} {view.name}: {listed}."
    on = shap[shap["x"].notna()]
    picked = on.iloc[np.unique(np.linspace(0, len(on) - 1, 5).round().astype(int))]
    listed = "; ".join(
        f"at {_place(view, float(r['x']))}: {style.number(float(r['value']))}" for _, r in picked.iterrows()
    )
    also = "with partial dependence and accumulated local effects beside it"
    return f"Curve of mean SHAP values on the {words} against {view.name}, {also}; {listed}."


def _place(view: _View, x: float) -> str:
    if view.meta.get("kind") == "datetime":
        return style.day(x)
    return style.value_name(x)
