"""From the facts of an explanation to what the page shows: sections of sentences, pictures and tables, all text."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from explain_step.report import sections as build
from explain_step.report import sentences
from explain_step.report.context import PageContext
from explain_step.report.format import Text, clean, is_number, number, percent
from explain_step.report.limits import Limit, limits
from explain_step.report.quality import fidelity, pair
from explain_step.report.sections import Section
from explain_step.report.tables import Labels
from explain_step.types import Caveat, Figure

ORDER = (
    "explained",
    "fidelity",
    "importance",
    "dependence",
    "segments",
    "examples",
    "quality",
    "reproducibility",
    "limits",
)
QUOTA = {"importance": 6, "dependence": 10, "segments": 6, "examples": 8}
"""Figures per section that stand on the page; the folder has all of them."""
BYTES = 2_000_000
"""PNG bytes on the page; written as text they take a third more, which leaves room for the tables below 3 MB."""
STATUS_MARKS = {
    "complete": "\u25cf",
    "degraded": "\u25d0",
    "incomplete": "\u25cb",
    "failed": "\u2715",
    "pending": "\u2026",
    "waived": "\u25cc",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyNumber:
    """One of the three numbers at the top."""

    label: str
    value: str
    interval: str
    note: Text


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A figure inside the page."""

    source: str
    alt: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CaveatGroup:
    """Caveats of one section."""

    section: str
    title: str
    messages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Everything that the templates print."""

    title: str
    version: str
    status: str
    mark: str
    reason: str
    aloud: Text
    numbers: tuple[KeyNumber, ...]
    sections: tuple[Section, ...]
    pictures: Mapping[str, tuple[Picture, ...]]
    left_out: Mapping[str, int]
    caveats: tuple[CaveatGroup, ...]
    limits: tuple[Limit, ...]


def view(context: PageContext) -> View:
    """Return what the page shows about ``context``."""
    labels = Labels(names=context.labels)
    found = {
        "explained": build.explained(context, labels=labels),
        "fidelity": build.fidelity_section(context),
        "importance": build.importance(context, labels=labels),
        "dependence": build.dependence(context, labels=labels),
        "segments": build.segments(context, labels=labels),
        "examples": build.examples(context, labels=labels),
        "quality": build.quality(context),
        "reproducibility": build.reproducibility(context),
    }
    chosen = choose_figures(context.figures)
    codes = frozenset(c.code for c in context.caveats)
    return View(
        title=clean(context.title) or "Model",
        version=clean(context.identity.get("version") or ""),
        status=context.status,
        mark=STATUS_MARKS.get(context.status, ""),
        reason=_sentence(context.reason),
        aloud=sentences.aloud(context.quantity),
        numbers=key_numbers(context, labels=labels),
        sections=tuple(found[name] for name in ORDER if name in found),
        pictures={kind: tuple(_picture(f) for f in figures) for kind, figures in chosen.items()},
        left_out={k: sum(f.kind == k for f in context.figures) - len(chosen.get(k, ())) for k in QUOTA},
        caveats=_grouped(context.caveats),
        limits=limits(
            quantity=context.quantity,
            identity=context.identity,
            artifacts=context.artifacts,
            codes=codes,
            labels=labels,
        ),
    )


def _sentence(text: str) -> str:
    line = clean(text).strip()
    return f"{line[:1].upper()}{line[1:]}{'' if line.endswith(('.', '!', '?')) or not line else '.'}"


def key_numbers(context: PageContext, *, labels: Labels) -> tuple[KeyNumber, ...]:
    """Return performance, fidelity and the share of the three leading inputs, each with its interval."""
    return (_performance(context), _fidelity(context), _top_share(context, labels=labels))


def _performance(context: PageContext) -> KeyNumber:
    artifact = context.artifacts.get("performance")
    if artifact is None or artifact.table.empty or not is_number(artifact.table["value"].iloc[0]):
        reason = context.missing.get("performance", "no labels were given")
        return _no_number("Performance", reason)
    row = artifact.table.iloc[0]
    better = "higher is better" if row["direction"] == "higher" else "lower is better"
    label = sentences.metric_words(row["metric"])
    return _number(
        f"{label[:1].upper()}{label[1:]}",
        row["value"],
        row["ci_low"],
        row["ci_high"],
        note=(f"performance; {better}",),
    )


def _fidelity(context: PageContext) -> KeyNumber:
    best = fidelity(pair(context.scores))
    if best is None or not is_number(best.score.value):
        reason = best.score.reason if best is not None else context.missing.get("scores")
        return _no_number("Fidelity", reason or "it was not measured")
    s = best.score
    control = (
        f"; random: {number(best.control.value, digits=2)}"
        if best.control and is_number(best.control.value)
        else ""
    )
    return _number(
        "Fidelity",
        s.value,
        s.ci_low,
        s.ci_high,
        note=(f"1 is perfect{control}" if s.direction == "higher" else "0 is perfect",),
    )


def _top_share(context: PageContext, *, labels: Labels) -> KeyNumber:
    artifact = context.artifacts.get("importance")
    if artifact is None or artifact.table.empty:
        return _no_number(
            "Top three inputs", context.missing.get("importance", "importance was not computed")
        )
    share, low, high, names = sentences.shares(artifact.table)
    if not is_number(share):
        return _no_number("Top three inputs", "every contribution is zero")
    bounds = f"{percent(low)} to {percent(high)}" if is_number(low) and is_number(high) else ""
    shown = sentences.listing([labels.of(n) for n in names])
    return KeyNumber(
        label=f"Share of the top {_small(len(names))}", value=percent(share), interval=bounds, note=shown
    )


def _small(n: int) -> str:
    return {1: "input", 2: "two inputs"}.get(n, "three inputs")


def _number(label: str, value: float, low: float, high: float, *, note: Text) -> KeyNumber:
    bounds = sentences.interval(low, high)
    return KeyNumber(
        label=label,
        value=number(value),
        interval=bounds if is_number(low) and is_number(high) else "",
        note=note,
    )


def _no_number(label: str, reason: str) -> KeyNumber:
    return KeyNumber(
        label=label, value="\u2013", interval="", note=(f"not available: {clean(reason).rstrip('.')}",)
    )


def choose_figures(figures: Iterable[Figure]) -> dict[str, list[Figure]]:
    """Return the figures for the page: in turn one of each section, while quota and bytes allow, in their order."""
    queues = {kind: [f for f in figures if f.kind == kind][:quota] for kind, quota in QUOTA.items()}
    taken: dict[str, list[Figure]] = {kind: [] for kind in QUOTA}
    left = BYTES
    for turn in range(max(QUOTA.values())):
        for kind, queue in queues.items():
            if turn < len(queue) and len(queue[turn].png) <= left:
                taken[kind].append(queue[turn])
                left -= len(queue[turn].png)
    return taken


def _picture(figure: Figure) -> Picture:
    data = base64.b64encode(figure.png).decode("ascii")
    return Picture(
        source=f"data:image/png;base64,{data}",
        alt=clean(figure.alt) or clean(figure.title) or "Figure",
        caption=clean(figure.title),
        width=figure.width,
        height=figure.height,
    )


def _grouped(caveats: Iterable[Caveat]) -> tuple[CaveatGroup, ...]:
    by_section: dict[str, dict[str, None]] = {}
    for c in caveats:
        by_section.setdefault(c.section, {})[_sentence(c.message)] = None
    return tuple(
        CaveatGroup(section=section, title=sentences.heading(clean(section)), messages=tuple(messages))
        for section, messages in by_section.items()
    )
