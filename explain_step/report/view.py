"""From the facts of an explanation to what the page shows: sentences, pictures and tables."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from explain_step.report import dependence, examples, identity, importance, quality, segments, sentences
from explain_step.report.context import PageContext
from explain_step.report.format import MISSING, Text, clean, interval, is_number, listing, number, percent
from explain_step.report.limits import Limit, limits
from explain_step.report.sections import Section, present
from explain_step.report.sentences import IN_FULL, capital, metric_words, sentence
from explain_step.report.tables import Labels, words
from explain_step.types import Caveat, Figure, Score

QUOTA = {"importance": 6, "dependence": 10, "segments": 6, "examples": 12}
"""Figures per section that stand on the page; the folder has all of them."""
BYTES = 2_000_000
"""PNG bytes on the page; written as text they take a third more, which leaves room for tables below 3 MB."""
PLACES = ("performance", "scores", "importance", "dependence", "segments", "examples")
"""Parts whose absence is told where they would stand."""
MARKS = {
    "complete": "\u25cf",
    "degraded": "\u25d0",
    "incomplete": "\u25cb",
    "failed": "\u2715",
    "pending": "\u2026",
    "waived": "\u25cc",
}
"""A shape beside the status word, so that neither colour nor the word alone carries it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyNumber:
    """One of the three numbers at the top; ``interval`` is empty where there is none."""

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

    title: str
    messages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Everything that the templates print."""

    title: str
    version: str
    address: str
    status: str
    mark: str
    reasons: tuple[str, ...]
    aloud: Text
    numbers: tuple[KeyNumber, ...]
    sections: tuple[Section, ...]
    pictures: Mapping[str, tuple[Picture, ...]]
    left_out: Mapping[str, int]
    caveats: tuple[CaveatGroup, ...]
    limits: tuple[Limit, ...]


def _reasons(context: PageContext) -> list[str]:
    """Return the parts of the status's reason; one that is a caveat keeps the semicolons that it has."""
    whole = [text for text in dict.fromkeys(c.message for c in context.caveats) if text in context.reason]
    rest, marks = context.reason, {f"\x00{i}": text for i, text in enumerate(whole)}
    for mark, text in marks.items():
        rest = rest.replace(text, mark)
    return [marks.get(part, part) for part in rest.split("; ")]


def view(context: PageContext) -> View:
    """Return what the page shows about ``context``."""
    return shown(without_figures(context), context.figures)


def shown(bare: View, figures: tuple[Figure, ...]) -> View:
    """Return what the page shows with figures."""
    chosen = choose_figures(figures)
    return replace(
        bare,
        pictures={kind: tuple(_picture(f) for f in some) for kind, some in chosen.items()},
        left_out={k: sum(f.kind == k for f in figures) - len(chosen[k]) for k in QUOTA},
    )


def without_figures(context: PageContext) -> View:
    """Return what the page shows beside its figures, which are there last."""
    labels = Labels(names=context.labels)
    name = clean(context.identity.get("name") or context.title).strip()
    return View(
        title=name or "Model",
        version=clean(context.identity.get("version") or ""),
        address=clean(context.identity.get("uri") or ""),
        status=capital(clean(context.status)),
        mark=MARKS.get(context.status, ""),
        reasons=tuple(sentence(part) for part in _reasons(context) if part.strip()),
        aloud=sentences.aloud(context.quantity),
        numbers=key_numbers(context, labels=labels),
        sections=_sections(context, labels=labels),
        pictures={},
        left_out={},
        caveats=_grouped(context.caveats),
        limits=limits(
            quantity=context.quantity,
            identity=context.identity,
            artifacts=context.artifacts,
            codes=frozenset(c.code for c in context.caveats),
            missing={k: v for k, v in context.missing.items() if k not in PLACES},
            labels=labels,
        ),
    )


def _sections(context: PageContext, *, labels: Labels) -> tuple[Section, ...]:
    return (
        identity.explained_section(context),
        quality.fidelity_section(context),
        importance.section(context, labels=labels),
        dependence.section(context, labels=labels),
        segments.section(context, labels=labels),
        examples.section(context, labels=labels),
        quality.section(context),
        identity.reproducibility_section(context),
    )


def key_numbers(context: PageContext, *, labels: Labels) -> tuple[KeyNumber, ...]:
    """Return performance, fidelity and the share of the three leading inputs, each with its interval."""
    return (
        _performance(context),
        _fidelity(context.scores, context.missing),
        _top_share(context, labels=labels),
    )


def _performance(context: PageContext) -> KeyNumber:
    artifact = present(context, "performance")
    if artifact is None or not is_number(artifact.table["value"].iloc[0]):
        return _no_number("Performance", context.missing.get("performance") or "it was not measured")
    row = artifact.table.iloc[0]
    return KeyNumber(
        label=capital(metric_words(row["metric"])),
        value=number(row["value"]),
        interval=_bounds(row["ci_low"], row["ci_high"]),
        note=(f"{IN_FULL.get(str(row['metric']), 'performance')}; {clean(row['direction'])} is better",),
    )


def _fidelity(scores: tuple[Score, ...], missing: Mapping[str, str]) -> KeyNumber:
    best = quality.fidelity(quality.pair(scores))
    if best is None or not is_number(best.score.value):
        reason = missing.get("scores") if best is None else best.score.reason
        return _no_number("Fidelity", reason or "it was not measured")
    s, control = best.score, best.control
    beside = (
        f"; random gives {number(control.value, digits=2)}" if control and is_number(control.value) else ""
    )
    return KeyNumber(
        label="Fidelity",
        value=number(s.value),
        interval=_bounds(s.ci_low, s.ci_high),
        note=(f"{'1 is perfect' if s.name == 'masking_r2' else f'{s.direction} is better'}{beside}",),
    )


def _top_share(context: PageContext, *, labels: Labels) -> KeyNumber:
    artifact = present(context, "importance")
    if artifact is None:
        return _no_number(
            "Top three inputs", context.missing.get("importance") or "importance was not computed"
        )
    share, low, high, names = importance.shares(artifact.table)
    if not is_number(share):
        return _no_number("Top three inputs", "every contribution is zero")
    label = {1: "Top input", 2: "Top two inputs"}.get(len(names), "Top three inputs")
    known = is_number(low) and is_number(high) and (share < 0.995 or percent(low) != percent(high))
    return KeyNumber(
        label=label,
        value=percent(share),
        interval=f"{percent(low)} to {percent(high)}" if known else "",
        note=("of the attribution: ", *listing([labels.of(n) for n in names])),
    )


def _bounds(low: object, high: object) -> str:
    text = interval(low, high)
    return "" if text == MISSING else text


def _no_number(label: str, reason: str) -> KeyNumber:
    return KeyNumber(
        label=label, value=MISSING, interval="", note=(f"not available: {clean(reason).rstrip('.')}",)
    )


def choose_figures(figures: Iterable[Figure]) -> dict[str, list[Figure]]:
    """Return the figures for the page: one of each section in turn while quota and bytes allow."""
    given = tuple(figures)
    queues = {kind: [f for f in given if f.kind == kind][:quota] for kind, quota in QUOTA.items()}
    taken: dict[str, list[Figure]] = {kind: [] for kind in QUOTA}
    left = BYTES
    for turn in range(max(QUOTA.values())):
        for kind, queue in queues.items():
            if turn < len(queue) and len(queue[turn].png) <= left:
                taken[kind].append(queue[turn])
                left -= len(queue[turn].png)
    return taken


def _picture(figure: Figure) -> Picture:
    title, alt = clean(figure.title).strip(), clean(figure.alt).strip()
    # who cannot see the picture hears the caption first: its words are not said again
    told = alt.removeprefix(title).lstrip(".: ") if title else alt
    return Picture(
        source=f"data:image/png;base64,{base64.b64encode(figure.png).decode('ascii')}",
        alt=capital(told) or title or f"Figure of {words(figure.kind).lower()}",
        caption=title,
        width=figure.width,
        height=figure.height,
    )


def _grouped(caveats: Iterable[Caveat]) -> tuple[CaveatGroup, ...]:
    by_section: dict[str, dict[str, None]] = {}
    for c in caveats:
        by_section.setdefault(c.section, {})[sentence(c.message)] = None
    return tuple(CaveatGroup(title=words(clean(name)), messages=tuple(m)) for name, m in by_section.items())
