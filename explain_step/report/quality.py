"""Scores in words, each beside its control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from explain_step.report.format import MISSING, Name, Text, clean, count, interval, is_number, number
from explain_step.report.tables import Column, Table
from explain_step.types import Score

FIDELITY = ("masking_r2", "masking_fidelity", "fidelity", "deletion_fidelity", "insertion_fidelity")
"""Names of scores that answer "how closely does the explanation follow the model", best first."""
CONTROL = ("random", "control", "shuffled")
TITLES = {
    "masking_r2": "Prediction changes explained when inputs are hidden",
    "masking_fidelity": "Prediction changes explained when inputs are hidden",
    "additivity_error": "Gap between summed contributions and prediction",
    "rank_stability": "Stability of the leading inputs over resampled rows",
    "topk_stability": "Stability of the leading inputs over resampled rows",
    "sparsity_gini": "Concentration on few inputs",
    "sparsity": "Concentration on few inputs",
    "gini": "Concentration on few inputs",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """A score and, where there is one, the same score of random attributions."""

    score: Score
    control: Score | None


def is_control(score: Score) -> bool:
    """Return whether a score is the control of another one."""
    return any(word in f"{score.variant} {score.name}".lower() for word in CONTROL)


def pair(scores: Sequence[Score]) -> tuple[Paired, ...]:
    """Return every score beside its control, in the given order."""
    controls = [s for s in scores if is_control(s)]
    return tuple(
        Paired(score=s, control=next((c for c in controls if _same(c, s)), None))
        for s in scores
        if not is_control(s)
    )


def _same(control: Score, score: Score) -> bool:
    return control.name == score.name or control.name.startswith(score.name)


def fidelity(pairs: Sequence[Paired]) -> Paired | None:
    """Return the score that says how closely the explanation follows the model."""
    for name in FIDELITY:
        for p in pairs:
            if p.score.name == name:
                return p
    return next((p for p in pairs if "fidelity" in p.score.name or "masking" in p.score.name), None)


def title(score: Score) -> str:
    """Return a score's name in words."""
    usual = clean(score.name.replace("_", " "))
    return TITLES.get(score.name, usual[:1].upper() + usual[1:])


def fidelity_finding(p: Paired) -> tuple[Text, ...]:
    """Return the fidelity number in a sentence, beside its control."""
    s = p.score
    if not is_number(s.value):
        return (
            f"There is no number: {clean(s.reason or 'the score is not defined for this model').rstrip('.')}.",
        )
    control = p.control.value if p.control is not None else None
    beside = f" Random contributions of the same size reach {number(control)}." if is_number(control) else ""
    bounds = interval(s.ci_low, s.ci_high)
    within = "" if bounds == MISSING else f" (interval {bounds})"
    if s.name.startswith("masking"):
        first = (
            "Inputs are hidden one after another in random order, by filling them from the background. "
            f"Adding up the contributions predicts what that does to the output with R\u00b2 = {number(s.value)}{within}; 1 is perfect."
        )
    else:
        better = "higher" if s.direction == "higher" else "lower"
        first = f"{title(s)}: {number(s.value)}{within}; {better} is better."
    return ((first + beside,),)


def scores_finding(pairs: Sequence[Paired]) -> tuple[Text, ...]:
    """Return how many scores beat their control."""
    beaten = [p for p in pairs if _beats(p)]
    known = [
        p for p in pairs if p.control is not None and is_number(p.control.value) and is_number(p.score.value)
    ]
    undefined = [p for p in pairs if not is_number(p.score.value)]
    if not known:
        head = f"{len(pairs) - len(undefined)} numbers were measured; none has a control to compare with."
    elif len(beaten) == len(known):
        which = "The one score" if len(known) == 1 else f"All {len(known)} scores"
        head = f"{which} with a random control {'is' if len(known) == 1 else 'are'} clearly better than it."
    else:
        head = f"{len(beaten)} of {len(known)} scores with a random control are clearly better than it."
    tail = f" {len(undefined)} could not be measured; the table says why." if undefined else ""
    return ((head + tail,),)


def _beats(p: Paired) -> bool:
    """Whether the score's interval lies on the better side of the control's value."""
    if p.control is None or not is_number(p.control.value):
        return False
    s, bound = p.score, p.control.value
    edge = s.ci_low if s.direction == "higher" else s.ci_high
    edge = edge if is_number(edge) else s.value
    if not is_number(edge) or edge is None or bound is None:
        return False
    return edge > bound if s.direction == "higher" else edge < bound


def scores_table(pairs: Sequence[Paired]) -> Table:
    """Return all scores with interval, direction, control and rows."""
    columns = (
        Column(title="Score", source="score", kind="name"),
        Column(title="Value", source="value"),
        Column(title="interval", source="ci"),
        Column(title="Random control", source="control"),
        Column(title="Better", source="direction", kind="word"),
        Column(title="Rows", source="n", kind="count"),
    )
    rows = tuple(_row(p) for p in pairs)
    reasons = dict.fromkeys(
        f"{title(p.score)}: {clean(p.score.reason).rstrip('.')}."
        for p in pairs
        if p.score.reason and not is_number(p.score.value)
    )
    notes: list[Text] = [(reason,) for reason in reasons]
    if any(cell == (MISSING,) for row in rows for cell in row):
        notes.append((f"{MISSING} not defined for this score.",))
    return Table(caption=("Scores of the explanation",), columns=columns, rows=rows, notes=tuple(notes))


def _row(p: Paired) -> tuple[Text, ...]:
    s = p.score
    variant: Text = (
        (", ", s.variant.replace("_", " ")) if s.variant and s.variant not in ("default", s.name) else ()
    )
    return (
        (title(s), *variant),
        (number(s.value),),
        (interval(s.ci_low, s.ci_high),),
        (number(p.control.value) if p.control is not None else MISSING,),
        (s.direction,),
        (count(s.n),),
    )


def sources(pairs: Sequence[Paired]) -> tuple[Text, ...]:
    """Return how each score is made: method, version and source."""
    out: list[Text] = []
    for p in pairs:
        source = f". {clean(p.score.source).rstrip('.')}" if p.score.source else ""
        out.append(
            (f"{title(p.score)}: ", Name(p.score.name), f", method {clean(p.score.method.name)}{source}.")
        )
    return tuple(out)
