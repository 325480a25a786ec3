"""Figures of global importance: bars with intervals and shared ranks, permutation importance, beeswarm."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explain_step.plots import marks, style
from explain_step.types import Artifact, Figure, FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = 20
OUTPUTS = 4
STACK = 60
"""Most dots over one bin of the beeswarm; more rows than that share a dot."""
BEES = 20
HALF = 0.31
"""Half the height of a bar."""


def jobs(artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str]) -> tuple[style.Job, ...]:
    """Plan the bars of the whole model, the bars of single outputs, and a beeswarm per output.

    Parameters
    ----------
    artifacts : mapping of str to Artifact
        ``importance`` is needed; ``beeswarm`` is drawn where present.
    labels : mapping of str to str
        Reader names of features.
    """
    if "importance" not in artifacts:
        return ()
    main = artifacts["importance"]
    outputs = list(dict.fromkeys(main.table["output"]))
    found: list[style.Job] = [partial(_bars, main, output=str(outputs[-1]), labels=labels)]
    single = [o for o in outputs if not o.startswith("(mean over")]
    if len(single) > 1:
        found.append(partial(_bars_by_output, main, outputs=single, labels=labels))
    if "beeswarm" in artifacts:
        bees = artifacts["beeswarm"]
        shown = [o for o in dict.fromkeys(bees.table["output"]) if o in single][:OUTPUTS]
        found += [partial(_beeswarm, bees, output=o, of=len(single), labels=labels) for o in shown]
    return tuple(found)


draw = style.drawing(jobs)


def _rows(table: pd.DataFrame, output: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that get a bar of their own and the others."""
    mine = table[table["output"] == output].reset_index(drop=True)
    cut = len(mine) if len(mine) <= BARS + 1 else BARS
    return mine.iloc[:cut], mine.iloc[cut:]


def _bars(artifact: Artifact, *, output: str, labels: Mapping[str, str]) -> Figure:
    top, others = _rows(artifact.table, output)
    names = style.names(list(top["feature"]), labels=labels, width=24)
    shown = [*names, f"{len(others)} others together"] if len(others) else names
    permutation = artifact.meta.get("permutation", {})
    measured = bool(np.isfinite(top["permutation_importance"]).any())
    figure = style.blank_figure(style.WIDTH, 1.35 + style.row_height(shown))
    widths = [3.0, 1.35] if measured else [1.0]
    axes = figure.subplots(1, len(widths), sharey=True, width_ratios=widths, squeeze=False)[0]
    _bar_panel(axes[0], top, others=others, names=shown, ranks=True)
    quantity = artifact.meta["quantity"]
    words = style.effect_words(quantity, output)
    axes[0].set_xlabel(style.paragraph(f"mean |SHAP| on the {words}", 40 if measured else 64))
    if measured:
        _permutation_panel(axes[1], top, metric=str(permutation.get("metric")))
    style.heading(figure, "How much each column moves the prediction")
    style.footnote(
        figure,
        "Whiskers: 95% intervals. A bracket joins columns whose order is not settled; beside it the ranks that the "
        "data allow. "
        f"{style.declared(quantity)}.",
    )
    return style.finish(
        figure,
        kind="importance",
        slug="bars" if not output.startswith("(") else "bars-mean",
        title="How much each column moves the prediction",
        alt=_bar_alt(
            top, others, words=words, labels=labels, metric=permutation.get("metric") if measured else None
        ),
    )


def _bar_panel(axes: Axes, top: pd.DataFrame, *, others: pd.DataFrame, names: list[str], ranks: bool) -> None:
    y = np.arange(len(top), dtype=np.float64)
    value = top["mean_abs_shap"].to_numpy()
    marks.bars(axes, 0.0, value, y - HALF, y + HALF, colour=style.ACCENT)
    low, high = top["ci_low"].to_numpy(), top["ci_high"].to_numpy()
    axes.hlines(y, low, high, color=style.INK, linewidth=1.0)
    for ends in (low, high):
        axes.vlines(ends, y - 0.13, y + 0.13, color=style.INK, linewidth=1.0)
    rest = float(others["mean_abs_shap"].sum()) if len(others) else 0.0
    if len(others):
        marks.bars(axes, [0.0], [rest], [len(top) - HALF], [len(top) + HALF], colour=style.LIGHT)
    widest = float(np.nanmax(np.concatenate([value, np.nan_to_num(high), [rest, 1e-300]])))
    _lanes(axes, names)
    axes.set_xlim(0, widest * (1.22 if ranks else 1.04))
    if ranks:
        _brackets(axes, top, at=widest * 1.05)


def _lanes(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=5)


def _brackets(axes: Axes, top: pd.DataFrame, *, at: float) -> None:
    """Write the possible ranks beside the bars and join neighbours whose possible ranks overlap."""
    low, high = top["rank_low"].to_numpy(), top["rank_high"].to_numpy()
    step = at * 0.012
    for i in range(len(top)):
        text = f"{low[i]:.0f}" if low[i] == high[i] else f"{low[i]:.0f}\u2013{high[i]:.0f}"
        axes.text(at + 2.2 * step, i, text, va="center", fontsize=style.SMALL - 0.5, color=style.GREY)
    start = 0
    for i in range(1, len(top) + 1):
        if i < len(top) and low[i] <= np.max(high[start:i]):
            continue
        if i - start > 1:
            ends = (start - 0.3, i - 1 + 0.3)
            axes.plot(
                [at - step, at, at, at - step], [ends[0], *ends, ends[1]], color=style.GREY, linewidth=0.9
            )
        start = i


def _permutation_panel(axes: Axes, top: pd.DataFrame, *, metric: str) -> None:
    y = np.arange(len(top), dtype=np.float64)
    value = top["permutation_importance"].to_numpy()
    axes.axvline(0, color=style.GREY, linewidth=0.8)
    axes.hlines(y, top["permutation_ci_low"], top["permutation_ci_high"], color=style.INK, linewidth=1.0)
    axes.plot(value, y, linestyle="none", marker="o", markersize=4, color=style.INK, markerfacecolor="white")
    axes.grid(axis="x", color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=3)
    axes.set_xlabel(style.paragraph(f"loss of {METRIC_WORDS.get(metric, metric)} when shuffled", 20))


METRIC_WORDS = {
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R\u00b2",
}


def _bar_alt(
    top: pd.DataFrame, others: pd.DataFrame, *, words: str, labels: Mapping[str, str], metric: str | None
) -> str:
    listed = "; ".join(_bar_words(row, labels) for row in top.head(10).to_dict("records"))
    more = (
        f" {len(others)} further columns together: {style.number(float(others['mean_abs_shap'].sum()))}."
        if len(others)
        else ""
    )
    beside = f" Beside it permutation importance ({metric}) with intervals." if metric else ""
    return (
        f"Bar chart of mean absolute SHAP values on the {words}, with 95% intervals: {listed}.{more}{beside}"
    )


def _bar_words(row: Mapping[Any, Any], labels: Mapping[str, str]) -> str:
    value, low, high = (style.number(row[c]) for c in ("mean_abs_shap", "ci_low", "ci_high"))
    first, last = f"{row['rank_low']:.0f}", f"{row['rank_high']:.0f}"
    ranks = f"rank {first}" if first == last else f"rank {first} to {last}"
    return f"{labels.get(row['feature'], row['feature'])} {value} ({low} to {high}, {ranks})"


def _bars_by_output(artifact: Artifact, *, outputs: list[str], labels: Mapping[str, str]) -> Figure:
    """Draw one column of bars per output, the features in the order of their mean over outputs."""
    table = artifact.table
    top, others = _rows(table, str(table["output"].iloc[-1]))
    shown = outputs[:OUTPUTS]
    names = style.names(list(top["feature"]), labels=labels, width=22)
    figure = style.blank_figure(style.WIDTH, 1.35 + style.row_height(names))
    # targets of a regression have units of their own
    shared = artifact.meta["quantity"]["output_space"] != "prediction"
    panels = figure.subplots(1, len(shown), sharey=True, sharex=shared)
    drawn = table.loc[table["output"].isin(shown), ["ci_high", "mean_abs_shap"]]
    highest = float(np.nanmax(drawn.to_numpy(dtype=np.float64)))
    for axes, output in zip(np.atleast_1d(panels), shown, strict=True):
        mine = table[table["output"] == output].set_index("feature").loc[list(top["feature"])].reset_index()
        _bar_panel(axes, mine, others=others.iloc[:0], names=names, ranks=False)
        axes.set_title(style.wrap(output, 20), fontsize=style.FONT, color=style.INK)
        axes.locator_params(axis="x", nbins=2)
        if shared:
            axes.set_xlim(0, 1.04 * highest if highest > 0 else 1.0)
    note = (
        f"The first {len(shown)} of {len(outputs)} outputs; the table has all. "
        if len(outputs) > len(shown)
        else ""
    )
    rest = f"{len(others)} further columns are in the table. " if len(others) else ""
    style.heading(figure, "How much each column moves each output")
    words = style.SPACES.get(str(artifact.meta["quantity"].get("output_space")), "output")
    how = style.declared(artifact.meta["quantity"])
    style.footnote(figure, f"Mean |SHAP| on the {words}; whiskers: 95% intervals. {note}{rest}{how}.")
    best = "; ".join(f"{o}: {_leaders(table, o, labels)}" for o in shown)
    return style.finish(
        figure,
        kind="importance",
        slug="bars-by-output",
        title="How much each column moves each output",
        alt=f"Bar charts of mean absolute SHAP values, one per output. {note}Leading columns: {best}.",
    )


def _leaders(table: pd.DataFrame, output: str, labels: Mapping[str, str]) -> str:
    mine = table[table["output"] == output].head(3)
    return ", ".join(labels.get(f, f) for f in mine["feature"])


def _beeswarm(artifact: Artifact, *, output: str, of: int, labels: Mapping[str, str]) -> Figure:
    table = artifact.table[artifact.table["output"] == output]
    features = list(dict.fromkeys(table["feature"]))[:BEES]
    names = style.names(features, labels=labels, width=22)
    figure = style.blank_figure(style.WIDTH, 1.45 + style.row_height(names, one=0.29))
    axes = figure.add_subplot()
    per_dot = _draw_dots(axes, table, features=features)
    axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    _lanes(axes, names)
    axes.grid(axis="x", visible=False)
    axes.hlines(np.arange(len(names)), *axes.get_xlim(), color=style.FAINT, linewidth=0.8, zorder=-1)
    axes.margins(x=0)
    words = style.effect_words(artifact.meta["quantity"], output)
    axes.set_xlabel(style.paragraph(f"SHAP value (effect on the {words})", 58))
    axes.locator_params(axis="x", nbins=7)
    _ramp_legend(axes, grey=bool(table["mean_value_rank"].isna().any()))
    title = "Which way each column pushes" + (f": {output}" if of > 1 else "")
    note = f"One of {of} outputs; at most {OUTPUTS} are drawn, the table has more. " if of > OUTPUTS else ""
    dots = "one row" if per_dot == 1 else f"up to {per_dot} rows"
    style.heading(figure, title, names=[output])
    style.footnote(figure, f"Each dot is {dots}. {note}{style.declared(artifact.meta['quantity'])}.")
    return style.finish(
        figure,
        kind="importance",
        slug=f"beeswarm-{style.slug(output)}",
        title=title,
        alt=f"Beeswarm of SHAP values on the {words}. {note}{_bee_alt(table, features, labels)}",
    )


def _draw_dots(axes: Axes, table: pd.DataFrame, *, features: list[str]) -> int:
    """Stack dots over each bin, low values below high ones; return how many rows one dot stands for."""
    from matplotlib.colors import to_rgba_array

    stacks = table.groupby(["feature", "shap_low"], sort=False)["count"].sum()
    per_dot = max(int(np.ceil(stacks.max() / STACK)), 1)
    cells = table[table["feature"].isin(features)]
    columns = ["shap_low", "shap_high", "mean_value_rank", "count"]
    low, high, rank, count = cells[columns].to_numpy(dtype=np.float64).T
    lane = np.asarray(pd.Categorical(cells["feature"], categories=features).codes)
    order = np.lexsort((rank, low, lane))
    dots = np.repeat(order, np.maximum(np.round(count / per_dot), 1).astype(int)[order])
    place, of, first = _stacked(np.stack([lane[dots], low[dots]]))
    # a low-discrepancy walk inside the bin: even, and the same on every drawing
    at = dots[first]
    x = low[at] + (high - low)[at] * ((0.5 + place * 0.6180339887) % 1.0)
    # tall stacks are compressed: height grows with the square root of the number of dots
    tallest = max(float(stacks.max()) / per_dot, 1.0)
    step = np.minimum(0.055, 0.84 * np.sqrt(of / tallest) / of)
    y = lane[dots] - (place - (of - 1) / 2) * step
    colours = to_rgba_array([style.ramp(r) for r in rank])[dots]
    axes.scatter(x, y, s=6.5, c=colours, linewidths=0, alpha=0.9, zorder=2)
    span = (float(table["shap_low"].min()), float(table["shap_high"].max()))
    pad = 0.02 * (span[1] - span[0])
    axes.set_xlim(min(span[0], 0) - pad, max(span[1], 0) + pad)
    return per_dot


def _stacked(bins: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return each dot's place in its stack, the size of the stack, and its first dot; ``bins`` (2, dots) are in order."""
    new = np.append(True, (np.diff(bins) != 0).any(axis=0))
    starts = np.flatnonzero(new)
    stack = np.cumsum(new) - 1
    first = starts[stack]
    return np.arange(len(first)) - first, np.diff(np.append(starts, len(first)))[stack], first


def _ramp_legend(axes: Axes, *, grey: bool) -> None:
    """Draw the key of the colours above the plot's right end."""
    inset = axes.inset_axes((0.66, 1.02, 0.17, 0.25 / max(axes.get_ylim()[0], 1.0)))
    inset.imshow([[*np.linspace(0, 1, 64)]], aspect="auto", cmap=_colour_map(), extent=(0, 1, 0, 1))
    inset.set_axis_off()
    mid = inset.transAxes
    inset.text(-0.08, 0.5, "low", transform=mid, ha="right", va="center", fontsize=style.SMALL)
    inset.text(1.08, 0.5, "high value", transform=mid, ha="left", va="center", fontsize=style.SMALL)
    if grey:
        text = "\u25cf no order"
        inset.text(
            -0.55, 0.5, text, transform=mid, ha="right", va="center", fontsize=style.SMALL, color=style.GREY
        )


def _colour_map() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("values", [style.LOW, style.MIDDLE, style.HIGH])


def _bee_alt(table: pd.DataFrame, features: list[str], labels: Mapping[str, str]) -> str:
    parts = []
    for feature in features[:8]:
        mine = table[table["feature"] == feature]
        span = (
            f"{style.number(float(mine['shap_low'].min()))} to {style.number(float(mine['shap_high'].max()))}"
        )
        parts.append(f"{labels.get(feature, feature)}: {span}{_direction(mine)}")
    return "Range of effects: " + "; ".join(parts) + "."


def _direction(mine: pd.DataFrame) -> str:
    known = mine.dropna(subset=["mean_value_rank"])
    centre = (known["shap_low"] + known["shap_high"]).to_numpy() / 2
    rank, weight = known["mean_value_rank"].to_numpy(), known["count"].to_numpy()
    if len(known) < 3 or np.ptp(rank) == 0 or np.ptp(centre) == 0:
        return ""
    a, b = (v - np.average(v, weights=weight) for v in (rank, centre))
    together = float(
        np.average(a * b, weights=weight)
        / np.sqrt(np.average(a**2, weights=weight) * np.average(b**2, weights=weight))
    )
    if abs(together) < 0.4:
        return ""
    return ", higher values push up" if together > 0 else ", higher values push down"
