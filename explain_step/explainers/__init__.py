"""Explainers: from a subject to its Shapley values, exact where possible.

``EXPLAINERS`` is ordered by preference; `choose` takes the first one that can explain the subject. They give interventional
values; `offered` has those of another quantity, where the caller asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from explain_step.config import Config
from explain_step.errors import InvalidInput, NotApplicable
from explain_step.explainers import additive, growing, masking
from explain_step.explainers.base import Bounded, Explainer
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.kernel import KERNEL
from explain_step.explainers.linear import LINEAR
from explain_step.explainers.linear_correlation import LINEAR_CORRELATION
from explain_step.explainers.masking import Clock
from explain_step.explainers.permutation import PERMUTATION
from explain_step.explainers.sampling import spread_rows
from explain_step.explainers.tree import TREE
from explain_step.seeds import Seeds
from explain_step.types import Attributions, Caveat, FeaturePerturbation, Subject

__all__ = ["CORRELATION_DEPENDENT", "EXPLAINERS", "Explainer", "choose", "explain", "offered"]

EXPLAINERS: tuple[Explainer, ...] = (TREE, LINEAR, KERNEL, ENUMERATION, PERMUTATION)
CORRELATION_DEPENDENT: tuple[Explainer, ...] = (LINEAR_CORRELATION,)
SECTION = "attributions"
ROWS_PER_COORDINATE = 10
"""Background rows per (derived) column below which regressions of columns on each other are shaky."""
SHORT, LEFT = 0.01, 0.25
"""Parts of the budget: what is not worth counting, and what an explainer has whatever was spent before it."""


def offered(perturbation: FeaturePerturbation) -> tuple[Explainer, ...]:
    """Return the explainers of the quantity that is asked for."""
    return EXPLAINERS if perturbation == "interventional" else CORRELATION_DEPENDENT


def choose(subject: Subject, *, explainers: tuple[Explainer, ...] = EXPLAINERS) -> Explainer:
    """Return the first explainer that can explain ``subject``.

    Raises
    ------
    NotApplicable
        None can; the message has every reason.
    """
    return _ask(subject, explainers)[0]


def _ask(
    subject: Subject, explainers: tuple[Explainer, ...], *, before: Mapping[str, str] | None = None
) -> tuple[Explainer, dict[str, str]]:
    """Return the first explainer that can, and the reasons of those in front of it; ``before`` are of earlier ones."""
    reasons: dict[str, str] = dict(before or {})
    for explainer in explainers:
        reason = explainer.why_not(subject)
        if reason is None:
            return explainer, reasons
        reasons[explainer.name] = reason
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    msg = f"no explainer can explain this model ({told or 'no explainer is left'})"
    raise NotApplicable(msg)


def explain(
    subject: Subject, *, config: Config, seeds: Seeds, explainers: tuple[Explainer, ...] | None = None
) -> tuple[Attributions, tuple[Caveat, ...]]:
    """Return the attributions of the subject's rows and what a reader must know about them.

    Rows are a seeded sample, spread over the model's output, where ``config.max_rows`` or the amount of work
    asks for it. Every explained row is checked: its values must sum to the model's output minus the base
    value. Where an explainer fails that check, the next one is used, and a caveat says so.

    Parameters
    ----------
    subject : Subject
    config : Config
        ``max_rows`` bounds the explained rows, ``budget`` the seconds of estimated work.
    seeds : Seeds
    explainers : tuple of Explainer, optional
        In the order of preference. Default: those of the package for ``config.feature_perturbation``.

    Raises
    ------
    InvalidInput
        ``config.feature_perturbation`` asks for a quantity that this model does not have.
    NotApplicable
        No explainer gave attributions that pass the check.
    PredictionFailed
        The model raised, or returned something that cannot be explained.
    """
    if explainers is not None or config.feature_perturbation == "interventional":
        return _explain(subject, config=config, seeds=seeds, explainers=explainers or EXPLAINERS)
    try:
        return _explain(subject, config=config, seeds=seeds, explainers=offered(config.feature_perturbation))
    except NotApplicable as error:
        msg = (
            f"Option feature_perturbation must be 'interventional' for this model, got {config.feature_perturbation!r}: "
            f"{error}; leave it out for the default."
        )
        raise InvalidInput(msg) from error


def _explain(
    subject: Subject, *, config: Config, seeds: Seeds, explainers: tuple[Explainer, ...]
) -> tuple[Attributions, tuple[Caveat, ...]]:
    n = len(subject.X)
    first = _ask(subject, explainers)[0]
    reach = first.rows_within(subject, budget=config.budget) if isinstance(first, Bounded) else n
    rows = spread_rows(
        subject.response.output,
        min(config.max_rows or n, reach),
        rng=seeds.rng("explain", "rows"),
        strata=subject.strata,
    )
    part = subject if len(rows) == n else subject.take(rows)
    left = explainers
    caveats: tuple[Caveat, ...] = () if reach >= min(config.max_rows or n, n) else (_within_budget(reach),)
    clock = Clock(config.budget)
    set_aside: dict[str, str] = {}
    while True:
        explainer, reasons = _ask(part, left, before=set_aside)
        try:
            found = explainer.explain(part, config=_remaining(config, clock), seeds=seeds)
            problem = not_additive(part, found)
        except NotApplicable as error:
            problem = str(error)
        if problem is None:
            break
        caveats = (*caveats, _fallback(explainer, problem))
        set_aside[explainer.name] = problem
        left = left[left.index(explainer) + 1 :]
    given = dataclasses.replace(additive.without_dust(found), rows=rows[found.rows])
    return given, (*caveats, *_facts(subject, given, reasons=reasons))


def _within_budget(rows: int) -> Caveat:
    text = (
        f"Exact values of this model are dear: the time budget is reckoned to reach for {rows:,} rows; a larger one for "
        "more."
    )
    return Caveat(code="rows_within_budget", section=SECTION, message=text)


def _remaining(config: Config, clock: Clock) -> Config:
    """Return the options with what earlier explainers left of the budget; something is always left."""
    spent = clock.spent()
    if spent < SHORT * config.budget:
        return config
    return config.model_copy(update={"budget": max(config.budget - spent, LEFT * config.budget)})


def not_additive(subject: Subject, attributions: Attributions) -> str | None:
    """Return why the values do not sum to output minus base value on every row, or None; see `additive.errors`."""
    error, wrong = additive.errors(subject, attributions)
    if not wrong.any():
        return None
    size = f"error up to {error.max():.2g}"
    return f"the values of {int(wrong.sum())} of {len(error)} rows do not sum to the output ({size})"


def _fallback(explainer: Explainer, problem: str) -> Caveat:
    return Caveat(
        code="explainer_fallback",
        section=SECTION,
        message=f"The explainer {explainer.name!r} was tried first and set aside: {problem}.",
    )


def _facts(subject: Subject, attributions: Attributions, *, reasons: dict[str, str]) -> tuple[Caveat, ...]:
    """Return the caveats that follow from the finished attributions."""
    checks = (
        _unchanging(subject, attributions),
        _cut(attributions),
        _sampled(subject, attributions),
        _part_of_background(attributions),
        *_correlation(attributions),
        *_estimated(subject, attributions, reasons=reasons),
    )
    return tuple(caveat for caveat in checks if caveat is not None)


def _unchanging(subject: Subject, attributions: Attributions) -> Caveat | None:
    if attributions.values.any():
        return None
    store = masking.pool(subject.model, subject.X, subject.background)
    why = (
        "every explained row equals every background row; give other background rows"
        if not store.varying().any()
        else "the model's output does not change with any column"
    )
    return Caveat(
        code="no_attribution", section=SECTION, message=f"All attributions are zero: {why}.", degrades=True
    )


def _cut(attributions: Attributions) -> Caveat | None:
    if attributions.method.budget is None:
        return None
    cut = attributions.method.budget
    message = f"The time budget cut the work: {cut}. A larger budget gives the planned numbers."
    return Caveat(code="budget_cut", section=SECTION, message=message, degrades=True)


def _sampled(subject: Subject, attributions: Attributions) -> Caveat | None:
    rows, given = len(attributions.rows), len(subject.X)
    if rows == given:
        return None
    over = "the model's output" if subject.strata is None else "the declared segments and the model's output"
    how = f"a seeded sample, spread over {over}"
    message = f"{rows:,} of the {given:,} given rows are explained: {how}."
    return Caveat(code="rows_sampled", section=SECTION, message=message)


def _estimated(
    subject: Subject, attributions: Attributions, *, reasons: dict[str, str]
) -> tuple[Caveat | None, ...]:
    """Return what must be said about estimates: how precise they are, and what they stand for."""
    if attributions.method.exact:
        return ()
    return (
        _imprecise(subject, attributions, reasons),
        _wide(attributions),
    )


def _imprecise(subject: Subject, attributions: Attributions, reasons: dict[str, str]) -> Caveat:
    model = subject.model
    why = (
        reasons.get(model.family)
        or model.reason
        or f"{model.model_class or 'the model'} can only be asked to predict"
    )
    error = attributions.standard_error
    noise = 0.0 if error is None else growing.noise(attributions.values, error)
    message = (
        f"Attributions are estimated by {attributions.method.name} sampling, with a standard error per value "
        f"(typically {noise:.1%} of a value's size); an exact method does not apply: {why}."
    )
    if noise > growing.TOO_NOISY:
        message += " That is too imprecise for small effects; fewer columns or a smaller max_rows help."
    return Caveat(code="estimated", section=SECTION, message=message, degrades=noise > growing.TOO_NOISY)


WHY_WIDE = {
    "budget": "the time budget was spent",
    "rows": "all rows that may be explained are, and more draws for each would not help enough",
    "predictions": "the largest number of predictions was reached",
}


def _wide(attributions: Attributions) -> Caveat | None:
    """Return what kept the intervals from being as narrow as they were asked to be."""
    facts = attributions.method.params
    why = WHY_WIDE.get(str(facts.get("ended_by")))
    if facts.get("precision") is None or why is None:
        return None
    reached = facts["precision_reached"]
    now = "is not known" if reached is None else f"is within {reached:.1%}"
    message = (
        f"Intervals of the leading columns were asked to be within {facts['precision']:.1%} of the largest importance; "
        f"the widest {now}: {why}."
    )
    degrades = facts["ended_by"] != "rows"
    return Caveat(code="precision_missed", section=SECTION, message=message, degrades=degrades)


def _correlation(attributions: Attributions) -> tuple[Caveat, ...]:
    """Return what must be said about values that rest on how columns depend on each other."""
    facts = attributions.method.params
    if facts.get("feature_perturbation") != "correlation_dependent":
        return ()
    rows, width = int(facts["background_rows"]), int(facts["coordinates"])
    message = (
        "Values are correlation-dependent: columns that are not known are expected from the known ones, by the "
        "linear regression of the background rows. A column that the model does not use can have credit for what it tells "
        "of others."
    )
    said = (Caveat(code="correlation_dependent", section=SECTION, message=message), *_outside(facts))
    if rows >= ROWS_PER_COORDINATE * width:
        return said
    text = (
        f"How {width:,} derived columns depend on each other is judged from {rows:,} background rows, fewer than "
        f"{ROWS_PER_COORDINATE} for each: part of the credit between columns is chance. More background rows help."
    )
    return (*said, Caveat(code="thin_background", section=SECTION, message=text, degrades=True))


def _outside(facts: Mapping[str, Any]) -> tuple[Caveat, ...]:
    """Return that some rows are explained by regressions that know nothing like them."""
    rows = int(facts.get("rows_outside", 0))
    if not rows:
        return ()
    message = (
        f"{rows:,} of the {int(facts['rows']):,} explained rows lie where the background rows do not say how columns go "
        "together; what their columns tell of each other is extrapolated, and their values may be large and cancel. Give "
        "background rows that are like them."
    )
    return (Caveat(code="rows_outside_background", section=SECTION, message=message, degrades=True),)


def _part_of_background(attributions: Attributions) -> Caveat | None:
    facts = attributions.method.params
    used, given = facts.get("background_rows", 0), facts.get("background_given")
    if given is None or used == given:
        return None
    message = (
        f"The base value and the values use a seeded sample of {used:,} of the {given:,} background rows."
    )
    return Caveat(code="background_sampled", section=SECTION, message=message)
