"""Figures of interactions: pairs ranked by strength, and the joint effect of the strongest pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explain_step.plots import style
from explain_step.types import Artifact, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAIRS = 10
OUTPUTS = 4
MOST_LINES = 4
SURFACE_ROWS = 200
"""Of the background are averaged at most, as `explain_step.artifacts.interactions` states it."""
LINES = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (1, 1)))
SHADES = ("#9db4d8", "#6c8bbf", style.ACCENT, style.INK)


def jobs(artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str]) -> tuple[style.Job, ...]:
    """Plan the ranked pairs of each output and the joint effect of its strongest pair."""
    found: list[style.Job] = []
    if "interactions" in artifacts:
        outputs = list(dict.fromkeys(artifacts["interactions"].table["output"]))
        pairs = partial(_pairs, artifacts["interactions"], of=len(outputs), labels=labels)
        found += [partial(pairs, output=o) for o in outputs[:OUTPUTS]]
    if "interaction_surface" in artifacts:
        surface = artifacts["interaction_surface"]
        outputs = list(dict.fromkeys(surface.table["output"]))
        joint = partial(_joint, surface, of=len(outputs), labels=labels)
        found += [partial(joint, output=o) for o in outputs[:OUTPUTS]]
    return tuple(found)


def _pairs(artifact: Artifact, output: str, *, of: int, labels: Mapping[str, str]) -> Figure:
    table = artifact.table[artifact.table["output"] == output]
    top = table.head(PAIRS)
    a, b = (style.names(list(top[c]), labels=labels, width=18, lines=1) for c in ("feature_a", "feature_b"))
    names = [f"{x} \u00d7 {y}" for x, y in zip(a, b, strict=True)]
    figure = style.blank_figure(style.WIDTH, 1.35 + style.row_height(names))
    axes = figure.add_subplot()
    y = np.arange(len(top), dtype=np.float64)
    found = (top["ci_low"] > 0).to_numpy()
    axes.hlines(y, top["ci_low"], top["ci_high"], color=style.INK, linewidth=1.2)
    fill = [style.ACCENT if f else "white" for f in found]
    axes.scatter(top["strength"], y, s=30, c=fill, edgecolors=style.ACCENT, linewidths=1.2, zorder=3)
    axes.set_yticks(y, names)
    axes.set_ylim(len(top) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    _limit(axes, top)
    words = style.effect_words(artifact.meta["quantity"], output)
    axes.set_xlabel(style.paragraph(f"typical departure from a sum of two separate effects, {words}", 52))
    title = "Which columns act together" + (f": {output}" if of > 1 else "")
    style.heading(figure, title, names=[output])
    more = (
        f"The strongest {len(top)} of {len(table)} pairs of the top columns. "
        if len(table) > len(top)
        else ""
    )
    exact = artifact.meta.get("exact")
    how = "" if exact is None else "; exact" if exact else "; estimated"
    style.footnote(
        figure,
        f"{more}Filled: the 95% interval, of each pair for itself, excludes zero; arrow: it goes on. "
        f"{int(artifact.meta['rows']):,} rows explained, {int(artifact.meta['contexts']):,} background rows each{how}.",
    )
    listed = "; ".join(
        f"{_full(r, labels)} {style.number(r['strength'])} ({style.number(r['ci_low'])} to "
        f"{style.number(r['ci_high'])})"
        for r in top.to_dict("records")
    )
    alt = f"Interaction strengths of pairs of columns on the {words}, with 95% intervals: {listed}."
    return style.finish(
        figure, kind="dependence", slug=f"interactions-{style.slug(output)}", title=title, alt=alt
    )


def _limit(axes: Axes, top: pd.DataFrame) -> None:
    """End the axis near the settled pairs; whiskers that go on get an arrow."""
    high = top["ci_high"].fillna(0.0)
    settled = high[top["ci_low"] > 0]
    end = 1.1 * max(float(settled.max()) if len(settled) else 0.0, 2 * float(top["strength"].max()))
    end = min(end, 1.04 * float(high.max())) if high.max() > 0 else 1.0
    axes.set_xlim(0, end if end > 0 else 1.0)
    beyond = np.flatnonzero(high > end)
    for lane in beyond:
        axes.plot([end], [lane], marker=">", markersize=5, color=style.INK, clip_on=False)


def _full(row: Mapping[Any, Any], labels: Mapping[str, str]) -> str:
    a, b = str(row["feature_a"]), str(row["feature_b"])
    return f"{labels.get(a, a)} and {labels.get(b, b)}"


def _joint(artifact: Artifact, output: str, *, of: int, labels: Mapping[str, str]) -> Figure:
    """Draw the effect of one column at several values of the other; parallel lines: no interaction."""
    table = artifact.table[artifact.table["output"] == output]
    a, b = str(table["feature_a"].iloc[0]), str(table["feature_b"].iloc[0])
    name_a, name_b = labels.get(a, a), labels.get(b, b)
    figure, axes = style.new_figure(style.WIDTH, 3.3)
    groups = [g for _, g in table.groupby("x_b", sort=True)]
    known = len(groups)
    if known > MOST_LINES:  # bands of more lines cover each other
        kept = np.linspace(0, known - 1, MOST_LINES).round().astype(int)
        groups = [groups[int(k)] for k in kept]
    dates = frozenset(map(str, artifact.meta.get("dates", ())))
    said = _values(groups, date=b in dates)
    for i, group in enumerate(groups):
        _line(axes, group, label=said[i], place=i, of=len(groups))
    levels = table.drop_duplicates("x_a").sort_values("x_a")
    if levels["level_a"].notna().all():
        slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        looks = slanted if len(levels) > 4 else {}
        axes.set_xticks(levels["x_a"], [style.wrap(str(v), 16) for v in levels["level_a"]], **looks)
        axes.margins(x=0.06)
    elif a in dates:
        style.write_dates(axes, most=5)
    words = style.effect_words(artifact.meta["quantity"], output)
    axes.set_xlabel(style.wrap(name_a, 60))
    axes.set_ylabel(style.paragraph(words, 34))
    axes.grid(axis="y", color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(
        title=style.wrap(name_b, 22, lines=3),
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        title_fontsize=style.SMALL,
        alignment="left",
        reverse=bool(table["level_b"].isna().all()),
    )
    short = [style.shortened(n, 28) for n in (name_a, name_b)]
    title = f"The effect of {short[0]} changes with {short[1]}" + (f": {output}" if of > 1 else "")
    style.heading(figure, title, names=[*short, output])
    some = f"{len(groups)} of {known} lines are drawn, the table has all. " if known > len(groups) else ""
    style.footnote(
        figure,
        f"Mean {words} of {_averaged(artifact.meta)} with both columns set; bands and whiskers: 95% intervals over these "
        f"rows, each point for itself. {some}Parallel lines would mean no interaction.",
    )
    return style.finish(
        figure,
        kind="dependence",
        slug=f"joint-{style.slug(output)}",
        title=title,
        alt=f"Lines of the mean {words} against {name_a}, one per value of {name_b}: {_ends(groups, said)}.",
    )


def _averaged(meta: Mapping[str, Any]) -> str:
    """Return the rows whose mean prediction a point is."""
    rows = meta["quantity"].get("background_rows")
    return (
        f"up to {SURFACE_ROWS} background rows"
        if rows is None or rows > SURFACE_ROWS
        else f"{rows} background rows"
    )


def _values(groups: Sequence[pd.DataFrame], *, date: bool) -> list[str]:
    """Return the name of each line's value, in as many digits as tell them apart."""
    for digits in (3, 4, 6, 9):
        said = [_value(group, date=date, digits=digits) for group in groups]
        if len(set(said)) == len(said):
            break
    return said


def _value(group: pd.DataFrame, *, date: bool, digits: int) -> str:
    level, x = group["level_b"].iloc[0], float(group["x_b"].iloc[0])
    return str(level) if isinstance(level, str) else style.day(x) if date else style.value_name(x, digits)


def _line(axes: Axes, group: pd.DataFrame, *, label: str, place: int, of: int) -> None:
    shade = SHADES[place + len(SHADES) - of]
    style_ = LINES[(of - 1 - place) % len(LINES)]
    apart = group["level_a"].notna().all()
    if apart:
        x = group["x_a"] + 0.13 * (place - (of - 1) / 2)
        error = np.stack([group["value"] - group["ci_low"], group["ci_high"] - group["value"]])
        axes.errorbar(
            x,
            group["value"],
            yerr=np.maximum(np.nan_to_num(error), 0),
            color=shade,
            linestyle=style_,
            linewidth=1.1,
            marker="o",
            markersize=4.5,
            capsize=2,
            label=style.wrap(label, 20),
        )
        return
    axes.fill_between(group["x_a"], group["ci_low"], group["ci_high"], color=shade, alpha=0.14, linewidth=0)
    axes.plot(
        group["x_a"],
        group["value"],
        color=shade,
        linestyle=style_,
        linewidth=1.7,
        label=style.wrap(label, 20),
    )


def _ends(groups: list[pd.DataFrame], said: list[str]) -> str:
    return "; ".join(
        f"at {text} from {style.number(float(g['value'].iloc[0]))} to "
        f"{style.number(float(g['value'].iloc[-1]))}"
        for g, text in zip(groups, said, strict=True)
    )
