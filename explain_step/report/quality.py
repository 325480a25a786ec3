"""How closely the explanation follows the model, and all its scores beside their random controls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from explain_step.report.context import PageContext
from explain_step.report.format import MISSING, Name, Text, clean, count, interval, is_number, number
from explain_step.report.sections import Details, Section, absent
from explain_step.report.sentences import capital, sentence, spelled
from explain_step.report.tables import Column, Table
from explain_step.types import Score

FIDELITY_TITLE = "How closely this follows the model"
TITLE = "Tests of this explanation"
FIDELITY = ("masking_r2", "masking_fidelity", "deletion_fidelity", "fidelity")
"""Names of scores that say how closely the explanation follows the model, best first."""
CONTROL = re.compile("control|random")
ROUNDING = "<10\u207b\u00b9\u00b2"
TITLES = {
    "masking_r2": "Changes explained when inputs are hidden (R\u00b2)",
    "additivity_error": "Gap between summed contributions and prediction",
    "rank_stability": "Ranking kept on resampled rows",
    "sparsity_gini": "Concentration on few inputs",
}
VARIANTS = {
    "interventional": "",
    "correlation_dependent": "",
    "mean": "average",
    "max": "largest",
    "global": "over all rows",
    "local": "within rows",
    "kendall_tau_b": "all inputs (tau-b)",
}
HIDDEN = {
    "interventional": "Inputs are hidden in random order, by values from background rows; what remains is interaction.",
    "correlation_dependent": "Inputs are hidden in random order, and expected from those that are not; what remains is "
    "what inputs tell only together.",
}
COLUMNS = (
    Column(title="Score", source="score", kind="name"),
    Column(title="Value", source="value"),
    Column(title="Random control", source="control"),
    Column(title="95% interval", source="ci"),
    Column(title="Aim", source="direction", kind="word"),
    Column(title="Rows", source="n", kind="count"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """A score and, where there is one, the same score of random attributions."""

    score: Score
    control: Score | None


def fidelity_section(context: PageContext) -> Section:
    """Return how closely the contributions follow the model, in a sentence."""
    best = fidelity(pair(context.scores))
    if best is None:
        return absent(context, "scores", id="fidelity", title=FIDELITY_TITLE)
    finding = fidelity_sentences(best)
    return Section(id="fidelity", title=FIDELITY_TITLE, finding=finding, made=_sources((best,)))


def section(context: PageContext) -> Section:
    """Return every score beside its control."""
    pairs = pair(context.scores)
    if not pairs:
        return absent(context, "scores", id="quality", title=TITLE)
    details = (
        Details(summary="Table of scores", tables=(table(pairs),)),
        Details(summary="How the scores are made", lines=_sources(pairs)),
    )
    return Section(id="quality", title=TITLE, finding=sentences(pairs), details=details)


def pair(scores: Sequence[Score]) -> tuple[Paired, ...]:
    """Return every score beside its control; a control belongs to the first variant of its score."""
    controls = {s.name: s for s in scores if CONTROL.search(s.variant.lower())}
    seen: set[str] = set()
    found = []
    for s in scores:
        if s is controls.get(s.name):
            continue
        found.append(Paired(score=s, control=None if s.name in seen else controls.get(s.name)))
        seen.add(s.name)
    return tuple(found)


def fidelity(pairs: Sequence[Paired]) -> Paired | None:
    """Return the score that says how closely the explanation follows the model."""
    named = [p for name in FIDELITY for p in pairs if p.score.name == name]
    return named[0] if named else None


def title(score: Score) -> str:
    """Return a score's name in words."""
    return TITLES.get(score.name, capital(clean(score.name.replace("_", " "))))


def _variant(score: Score) -> str:
    top = re.fullmatch(r"top(\d+)", score.variant)
    if top:
        return f"top {spelled(int(top[1]))}"
    return VARIANTS.get(score.variant, clean(score.variant.replace("_", " ")))


def fidelity_sentences(p: Paired) -> tuple[Text, ...]:
    """Return the fidelity number in a sentence, beside its control."""
    s = p.score
    if not is_number(s.value):
        return ((sentence(f"There is no number: {s.reason or 'the score is not defined for this model'}"),),)
    control = p.control.value if p.control is not None else None
    beside = f" Random contributions reach {number(control)}." if is_number(control) else ""
    bounds = interval(s.ci_low, s.ci_high)
    within = "" if bounds == MISSING else f" ({bounds})"
    if s.name != "masking_r2":
        return ((f"{title(s)}: {number(s.value)}{within}; {s.direction} is better.{beside}",),)
    return (
        (
            "Summed contributions predict what happens to the output when inputs are hidden with "
            f"R\u00b2\u00a0=\u00a0{number(s.value)}{within}; 1 is perfect.{beside}",
        ),
        (HIDDEN.get(s.variant, HIDDEN["interventional"]),),
    )


def sentences(pairs: Sequence[Paired]) -> tuple[Text, ...]:
    """Return how many scores are better than their random control, and how many are not defined."""
    known = [
        p for p in pairs if p.control is not None and is_number(p.control.value) and is_number(p.score.value)
    ]
    beaten = sum(beats_control(p) for p in known)
    undefined = sum(not is_number(p.score.value) for p in pairs)
    if not known:
        head = "No score has a random control to compare with."
    elif beaten == len(known):
        many = {1: "The one score", 2: "Both scores"}.get(len(known), f"All {spelled(len(known))} scores")
        verb = "is" if len(known) == 1 else "are"
        head = f"{many} with a random control {verb} clearly ahead of it."
    else:
        verb = "is" if beaten == 1 else "are"
        ahead = f"{capital(spelled(beaten))} of {spelled(len(known))} scores with a random control {verb}"
        head = f"{ahead} clearly ahead of it."
    if undefined:
        return ((head,), (f"{capital(spelled(undefined))} could not be measured; the table says why.",))
    return ((head,),)


def beats_control(p: Paired) -> bool:
    """Return whether the score's interval lies on the better side of the control's value."""
    s = p.score
    bound = s.ci_low if s.direction == "higher" else s.ci_high
    edge = bound if bound is not None else s.value
    other = p.control.value if p.control is not None else None
    if edge is None or other is None:
        return False
    return edge > other if s.direction == "higher" else edge < other


def table(pairs: Sequence[Paired]) -> Table:
    """Return all scores with interval, control, direction and rows."""
    rows = tuple(_row(p) for p in pairs)
    reasons = dict.fromkeys(
        f"{title(p.score)}, {_variant(p.score)}: {clean(p.score.reason)}" for p in pairs if p.score.reason
    )
    notes: list[Text] = (
        [(f"{MISSING} no control of its own, or not defined.",)] if any((MISSING,) in r for r in rows) else []
    )
    notes += [(sentence(reason.replace(", :", ":")),) for reason in reasons]
    return Table(caption=("Scores of the explanation",), columns=COLUMNS, rows=rows, notes=tuple(notes))


def _row(p: Paired) -> tuple[Text, ...]:
    s, variant = p.score, _variant(p.score)
    return (
        (title(s) + (f", {variant}" if variant else ""),),
        (_number(s.value),),
        (_number(p.control.value) if p.control is not None else MISSING,),
        (_interval(s),),
        (s.direction,),
        (count(s.n),),
    )


def _number(value: float | None) -> str:
    """Return a score's value; what is only the rounding of the machine is shown as such."""
    return ROUNDING if value is not None and abs(value) < 1e-12 else number(value)


def _interval(s: Score) -> str:
    tiny = s.ci_low is not None and s.ci_high is not None and max(abs(s.ci_low), abs(s.ci_high)) < 1e-12
    return ROUNDING if tiny else interval(s.ci_low, s.ci_high)


def _sources(pairs: Sequence[Paired]) -> tuple[Text, ...]:
    """Return what each score is: stored name, what its intervals cover (each variant's own), and source."""
    by_name: dict[str, list[Score]] = {}
    for p in pairs:
        by_name.setdefault(p.score.name, []).append(p.score)
    return tuple(_source(scores) for scores in by_name.values())


def _source(scores: Sequence[Score]) -> Text:
    first = scores[0]
    cut = f" Cut by the budget: {clean(first.method.budget)}." if first.method.budget else ""
    source = f" {sentence(first.source)}" if first.source else ""
    return (f"{title(first)}: ", Name(first.name), f".{_covered(scores)}{cut}{source}")


def _covered(scores: Sequence[Score]) -> str:
    """Return what the intervals of a score's variants cover: once where it is the same."""
    by_text: dict[str, list[str]] = {}
    for score in scores:
        about = score.method.params.get("interval")
        if isinstance(about, str):
            by_text.setdefault(clean(about).rstrip("."), []).append(_variant(score))
    if len(by_text) < 2:
        return "".join(f" Interval: {text}." for text in by_text)
    return "".join(f" Interval ({', '.join(of)}): {text}." for text, of in by_text.items())
