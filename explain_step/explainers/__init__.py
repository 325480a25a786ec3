"""Explainers: from a subject to its interventional Shapley values, exact where possible.

``EXPLAINERS`` is ordered by preference; `choose` takes the first one that can explain the subject.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import masking
from explain_step.explainers.base import Explainer
from explain_step.explainers.enumeration import ENUMERATION
from explain_step.explainers.linear import LINEAR
from explain_step.explainers.permutation import PERMUTATION
from explain_step.explainers.sampling import spread_rows
from explain_step.explainers.tree import TREE
from explain_step.seeds import Seeds
from explain_step.types import Attributions, Caveat, FloatArray, Subject

__all__ = ["EXPLAINERS", "Explainer", "choose", "explain"]

EXPLAINERS: tuple[Explainer, ...] = (TREE, LINEAR, ENUMERATION, PERMUTATION)
SECTION = "attributions"
ZERO = 1e-14
"""Values below this, relative to the outputs, are rounding: some forty units in the last place."""
TOO_NOISY = 0.5
"""Estimates whose standard error is more than this part of a typical value degrade the explanation."""
DOUBLE, SINGLE = (1e-6, 1e-12), (1e-5, 1e-6)
"""Largest additivity error relative to the outputs and to the sums' terms: in double precision, in single precision."""


def choose(subject: Subject, *, explainers: tuple[Explainer, ...] = EXPLAINERS) -> Explainer:
    """Return the first explainer that can explain ``subject``.

    Raises
    ------
    NotApplicable
        None can; the message has every reason.
    """
    return _ask(subject, explainers)[0]


def _ask(subject: Subject, explainers: tuple[Explainer, ...]) -> tuple[Explainer, dict[str, str]]:
    """Return the first explainer that can, and the reasons of those before it."""
    reasons: dict[str, str] = {}
    for explainer in explainers:
        reason = explainer.why_not(subject)
        if reason is None:
            return explainer, reasons
        reasons[explainer.name] = reason
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    msg = f"no explainer can explain this model ({told or 'no explainer is left'})"
    raise NotApplicable(msg)


def explain(
    subject: Subject, *, config: Config, seeds: Seeds, explainers: tuple[Explainer, ...] = EXPLAINERS
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
    explainers : tuple of Explainer
        In the order of preference.

    Raises
    ------
    NotApplicable
        No explainer gave attributions that pass the check.
    PredictionFailed
        The model raised, or returned something that cannot be explained.
    """
    n = len(subject.X)
    rows = spread_rows(subject.response.output, config.max_rows or n, rng=seeds.rng("explain", "rows"))
    part = subject if len(rows) == n else subject.take(rows)
    left = explainers
    caveats: tuple[Caveat, ...] = ()
    while True:
        explainer, reasons = _ask(part, left)
        try:
            found = explainer.explain(part, config=config, seeds=seeds)
            problem = not_additive(part, found)
        except NotApplicable as error:
            problem = str(error)
        if problem is None:
            break
        caveats = (*caveats, _fallback(explainer, problem))
        left = left[left.index(explainer) + 1 :]
    given = dataclasses.replace(_without_dust(found), rows=rows[found.rows])
    return given, (*caveats, *_facts(subject, given, reasons=reasons))


def not_additive(subject: Subject, attributions: Attributions) -> str | None:
    """Return why the values do not sum to output minus base value on every row, or None where they do.

    The largest error allowed is a part of the size of the outputs, and a much smaller part of the sums' terms, whose
    rounding stays when they cancel: `DOUBLE`, or `SINGLE` for a model that answers in single precision, as boosters do.
    """
    output = subject.response.output[attributions.rows]
    error = np.abs(attributions.base_values + attributions.values.sum(axis=1) - output)
    single = bool((output == output.astype(np.float32)).all())
    of_output, of_terms = SINGLE if single else DOUBLE
    allowed = of_output * np.abs(output).max(axis=0, initial=0.0) + of_terms * _terms(attributions)
    # written so that NaN fails
    wrong = int((~(error <= allowed)).any(axis=1).sum())
    if not wrong:
        return None
    size = f"error up to {error.max():.2g}"
    return f"the values of {wrong} of {len(output)} rows do not sum to the output ({size})"


def _terms(attributions: Attributions) -> FloatArray:
    """Return the largest sum of the absolute terms of a row: (outputs,). Rounding errors are parts of it."""
    sums = np.abs(attributions.base_values) + np.abs(attributions.values).sum(axis=1)
    return np.asarray(np.where(np.isfinite(sums), sums, 0.0).max(axis=0, initial=0.0))


def _without_dust(attributions: Attributions) -> Attributions:
    """Return the attributions with zeros for the features that nothing but rounding sets apart from zero.

    Sums over coalitions leave a few units in the last place of the outputs where a feature has no effect; they would be
    ranked and drawn like effects.
    """
    dust = np.abs(attributions.values).max(axis=0, initial=0.0) <= ZERO * _terms(attributions)
    if not (dust & (attributions.values != 0).any(axis=0)).any():
        return attributions
    error, parts = attributions.standard_error, attributions.parts
    return dataclasses.replace(
        attributions,
        values=np.where(dust, 0.0, attributions.values),
        standard_error=None if error is None else np.where(dust, 0.0, error),
        parts=None if parts is None else np.where(dust, 0.0, parts),
    )


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
    how = "a seeded sample, spread over the model's output"
    message = f"{rows:,} of the {given:,} given rows are explained: {how}."
    return Caveat(code="rows_sampled", section=SECTION, message=message)


def _estimated(
    subject: Subject, attributions: Attributions, *, reasons: dict[str, str]
) -> tuple[Caveat | None, ...]:
    """Return what must be said about estimates: how precise they are, and what they stand for."""
    if attributions.method.exact:
        return ()
    return (_imprecise(subject, attributions, reasons), _part_of_background(attributions))


def _imprecise(subject: Subject, attributions: Attributions, reasons: dict[str, str]) -> Caveat:
    model = subject.model
    why = (
        model.reason
        or reasons.get(model.family)
        or f"{model.model_class or 'the model'} can only be asked to predict"
    )
    size = float(np.sqrt(np.mean(attributions.values**2)))
    error = attributions.standard_error
    noise = float(np.sqrt(np.mean(error**2))) / size if error is not None and size > 0 else 0.0
    message = (
        f"Attributions are estimated by {attributions.method.name} sampling, with a standard error per value "
        f"(typically {noise:.1%} of a value's size); an exact method does not apply: {why}."
    )
    if noise > TOO_NOISY:
        message += " That is too imprecise for small effects; fewer columns or a smaller max_rows help."
    return Caveat(code="estimated", section=SECTION, message=message, degrades=noise > TOO_NOISY)


def _part_of_background(attributions: Attributions) -> Caveat | None:
    used, given = (attributions.method.params.get(k, 0) for k in ("background_rows", "background_given"))
    if used == given:
        return None
    message = (
        f"The base value and the values use a seeded sample of {used:,} of the {given:,} background rows."
    )
    return Caveat(code="background_sampled", section=SECTION, message=message)
