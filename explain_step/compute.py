"""From a model and rows to tables, scores and caveats: everything that needs no file and no server."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import pandas as pd

from explain_step import data as data_room
from explain_step import explainers, models, privacy, scores, streaming, threads
from explain_step.artifacts import BUILDERS, Builder, segment_rules
from explain_step.config import Config
from explain_step.errors import InvalidInput, NotApplicable
from explain_step.explainers import ensembles
from explain_step.explainers.prepared import Explain, prepare
from explain_step.labels import take_column
from explain_step.quantity import quantity
from explain_step.secret_masking import mask_text
from explain_step.seeds import Seeds, caller_state_kept
from explain_step.stages import Journal, Purse
from explain_step.types import (
    Artifact,
    Attributions,
    Caveat,
    IntArray,
    Response,
    Score,
    Section,
    Status,
    Subject,
)

T = TypeVar("T")
MOST_TOLD = 400
"""Characters of an error in the reason of a section."""
ASIDE = ("segments", "examples", "performance")
"""Sections that never ask the model, so that another process can make them; the one that takes longest first."""
OF_ALL_ROWS = ("performance", "segments")
"""Sections that are made from every row given also where a sample of them is explained."""
CALLERS_FAULT = (InvalidInput,)
"""Errors of the caller's arguments: raised at once, not recorded as a missing section."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Everything that was computed about one model on one set of rows.

    ``missing`` names each section that could not be made and why; ``required`` are the sections without which the
    explanation is incomplete.
    """

    subject: Subject
    attributions: Attributions
    artifacts: tuple[Artifact, ...]
    scores: tuple[Score, ...]
    caveats: tuple[Caveat, ...]
    missing: Mapping[str, str]
    required: tuple[str, ...]
    events: tuple[Mapping[str, Any], ...]
    config: Config
    consumers: Mapping[str, int] = field(default_factory=dict)
    """Stages that drew random numbers, and how many streams each."""
    counted: int | None = None
    """Rows behind importance, mean contributions and segments, where these are more than the attributions' rows."""
    all_rows: Mapping[str, Any] | None = None
    """Number and order-free digest of all rows, where ``subject`` itself is only a sample of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """All rows that were given, and which of them are the sample that is explained."""

    subject: Subject
    rows: IntArray

    def of(self, attributions: Attributions) -> tuple[Subject, Attributions]:
        """Return all rows with the sample's attributions, at their places among them."""
        return self.subject, replace(attributions, rows=self.rows[attributions.rows])


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A section as it was made elsewhere: what `Journal` and `Seeds` noted there comes with it."""

    section: Section
    events: tuple[Mapping[str, Any], ...]
    drawn: frozenset[tuple[str, ...]]


class Helper(Protocol):
    """Who makes some of the sections elsewhere, and wants to know what is made here."""

    def started(self, *, rows: int, sections: Mapping[str, Callable[[], Made]]) -> None:
        """So many rows are explained at once; these sections can be made from now on."""

    def section(self, name: str) -> Made | None:
        """Return the section if it has been made; nothing is waited for."""

    def made(self, builder: str, artifacts: Iterable[Artifact]) -> None:
        """One builder is done; these tables do not change any more."""


@caller_state_kept()
def compute(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    config: Config,
    background: Any = None,
    sample_weight: Any = None,
    builders: tuple[Builder, ...] = BUILDERS,
    many: int = data_room.MANY_ROWS,
    helper: Helper | None = None,
) -> Explanation:
    """Explain ``model`` on the rows of ``X``.

    Of many rows, exact values of all are made and checked block by block and added up (`explain_step.streaming`);
    everything else is made from a seeded sample of them.

    Parameters
    ----------
    model : object
        Anything `explain_step.models.wrap` takes.
    X : frame-like of n rows
        Held-out rows; columns beyond the model's are available to segments.
    y : array-like of n labels or column name, optional
    config : Config
    background : frame-like, optional
        Reference rows; the explained rows themselves when not given.
    sample_weight : array-like of n weights or column name, optional
    builders : tuple of Builder
        The sections to make.
    many : int
        More rows than this are explained block by block, and held in memory once.
    helper : Helper, optional
        Makes some of the sections beside this process, unless rows are explained block by block.

    Raises
    ------
    InvalidInput
        An argument breaks a rule.
    PredictionFailed
        The model cannot be asked about these rows.
    """
    journal = Journal()
    seeds = Seeds(config.seed)
    with journal.stage("data"):
        subject, caveats = _subject(
            model, X, y, config=config, background=background, sample_weight=sample_weight, many=many
        )
        privacy.check(config, [*subject.frame.columns, subject.target_name])
        segment_rules.check(config, list(subject.frame.columns))
        subject = replace(subject, strata=segment_rules.strata(subject.frame, config=config))
        rows = streaming.sample_of(subject, config=config, seeds=seeds, many=many)
    explained = partial(
        _explained, caveats=caveats, config=config, seeds=seeds, journal=journal, builders=builders
    )
    if rows is not None:
        sample = streaming.taken(subject, rows)
        offered = explainers.offered(config.feature_perturbation)
        ready = prepare(sample, rows=len(subject.X), budget=config.budget, explainers=offered)
        if ready is not None:
            small = explained(sample, given=Given(subject=subject, rows=rows))
            with journal.stage("all_rows", rows=len(subject.X)):
                found = _of_all_rows(small, subject, rows, explain=ready)
            return replace(found, events=tuple(journal.events))
    return explained(subject, helper=helper)


def _of_all_rows(small: Explanation, subject: Subject, rows: IntArray, *, explain: Explain) -> Explanation:
    """Return the sample's explanation with the numbers of all rows, where every row's values sum to its output."""
    config = small.config
    attributions = replace(small.attributions, rows=rows)
    if not small.attributions.method.exact:
        n, given = len(rows), len(subject.X)
        text = (
            f"{n:,} of the {given:,} given rows are explained: a seeded sample. Performance, also of segments, is "
            "of all rows; nothing else is."
        )
        said = Caveat(code="rows_sampled", section="attributions", message=text)
        return replace(small, subject=subject, attributions=attributions, caveats=(*small.caveats, said))
    plan = streaming.plan_of(
        small.subject, small.attributions, small.artifacts, config=config, cut=(subject, attributions)
    )
    totals = streaming.totals_of(plan, subject, explain)
    if totals.broken:
        text = (
            f"The values of {totals.broken:,} of {totals.rows:,} rows do not sum to the output (error up to "
            f"{totals.error:.2g}), so that all numbers but performance are of a seeded sample of {len(rows):,} rows, whose "
            "values do."
        )
        said = Caveat(code="rows_not_additive", section="attributions", message=text, degrades=True)
        return replace(small, subject=subject, attributions=attributions, caveats=(*small.caveats, said))
    artifacts = streaming.overlay(small.artifacts, plan, totals, config=config)
    return replace(
        small,
        subject=subject,
        attributions=attributions,
        artifacts=artifacts,
        caveats=streaming.caveats(small.caveats, artifacts, plan, totals, config=config),
        counted=totals.rows,
    )


def described(explanation: Explanation) -> dict[str, Any]:
    """Return the explained quantity; its ``rows`` are those behind the importance, ``sample_rows`` those behind the rest."""
    found = quantity(explanation.subject, explanation.attributions)
    given = int(found.get("rows_given", 0))
    if explanation.all_rows is not None:  # the subject is a sample itself
        given = max(given, int(explanation.all_rows["rows"]))
    if explanation.counted is None:
        return {**found, "rows_given": given}
    given = max(given, explanation.counted)
    sample = len(explanation.attributions.rows)
    return {**found, "rows": explanation.counted, "rows_given": given, "sample_rows": sample}


def _explained(
    subject: Subject,
    *,
    caveats: tuple[Caveat, ...],
    config: Config,
    seeds: Seeds,
    journal: Journal,
    builders: tuple[Builder, ...],
    helper: Helper | None = None,
    given: Given | None = None,
) -> Explanation:
    """Return the explanation of a subject's rows: attributions, sections and scores.

    Where they are a sample, ``given`` is what they were taken from, and `OF_ALL_ROWS` are made from that.
    """
    purse = Purse(config)
    with journal.stage("attributions", rows=len(subject.X)), purse.stage("attributions") as afforded:
        attributions, more = explainers.explain(subject, config=afforded, seeds=seeds)
    if attributions.method.exact and "predicted_rows" not in attributions.method.params:
        purse.refund(purse.spent)
    missing: dict[str, str] = {}
    sections = _sections(
        builders,
        subject,
        attributions,
        purse=purse,
        seeds=seeds,
        journal=journal,
        missing=missing,
        helper=helper,
        given=given,
    )
    with purse.stage("scores") as afforded:
        found = _attempt(
            "scores",
            partial(scores.score, subject, attributions, config=afforded, seeds=seeds),
            journal=journal,
            missing=missing,
            config=afforded,
        )
    artifacts = [artifact for section in sections for artifact in section.artifacts]
    if found:
        artifacts.append(scores.to_artifact(found, quantity(subject, attributions)))
    said = (*caveats, *more, *(caveat for section in sections for caveat in section.caveats))
    return Explanation(
        subject=subject,
        attributions=attributions,
        artifacts=tuple(artifacts),
        scores=found or (),
        caveats=tuple(dict.fromkeys(said)),
        missing=missing,
        required=tuple(b.name for b in builders if b.required),
        events=tuple(journal.events),
        config=config,
        consumers=seeds.consumers(),
    )


def _subject(
    model: Any, X: Any, y: Any, *, config: Config, background: Any, sample_weight: Any, many: int
) -> tuple[Subject, tuple[Caveat, ...]]:
    frame, labels, target = data_room.split_target(data_room.to_frame(X), y)
    if target and getattr(labels, "ndim", 1) == 1:
        labels = pd.Series(labels, name=target)
    if isinstance(sample_weight, str):  # a column of weights is no feature
        frame, sample_weight = take_column(frame, sample_weight, argument="sample_weight")
    fitted = ensembles.remembering(models.wrap(model, frame=frame, config=config))
    return data_room.subject(
        fitted,
        frame,
        labels,
        config=config,
        background=background,
        sample_weight=sample_weight,
        many=many,
    )


def _sections(
    builders: tuple[Builder, ...],
    subject: Subject,
    attributions: Attributions,
    *,
    purse: Purse,
    seeds: Seeds,
    journal: Journal,
    missing: dict[str, str],
    helper: Helper | None,
    given: Given | None,
) -> list[Section]:
    elsewhere = sorted((b for b in builders if b.name in ASIDE), key=lambda b: ASIDE.index(b.name))
    if helper is not None:
        apart = partial(_apart, subject, attributions, config=purse.config, seed=seeds.seed)
        helper.started(rows=len(subject.X), sections={b.name: partial(apart, b) for b in elsewhere})
    made: dict[str, Section] = {}
    failed: dict[str, str] = {}
    # what is made elsewhere comes last, from the other end, so that little is made twice
    for builder in (*(b for b in builders if b not in elsewhere), *reversed(elsewhere)):
        there = None if helper is None else helper.section(builder.name)
        if there is not None:
            section: Section | None = there.section
            journal.include(there.events)
            seeds.drawn.update(there.drawn)
        else:
            whole = given if builder.name in OF_ALL_ROWS else None
            of = (subject, attributions) if whole is None else whole.of(attributions)
            with purse.stage(builder.name) as afforded:
                build = partial(builder.build, *of, config=afforded, seeds=seeds)
                section = _attempt(builder.name, build, journal=journal, missing=failed, config=afforded)
        if section is not None:
            made[builder.name] = section
        if helper is not None:
            helper.made(builder.name, () if section is None else section.artifacts)
    missing.update((b.name, failed[b.name]) for b in builders if b.name in failed)
    return [made[b.name] for b in builders if b.name in made]


def _apart(
    subject: Subject, attributions: Attributions, builder: Builder, *, config: Config, seed: int
) -> Made:
    """Make one section for another process to take; what goes wrong is raised, and so is a question to the model."""
    journal, seeds = Journal(), Seeds(seed)
    model = replace(
        subject.model,
        respond=_refuse,
        outputs=None,
        derived_outputs=None,
        scored=None,
        native=None,
        trees=None,
    )
    with journal.stage(builder.name), threads.alone():
        section = builder.build(replace(subject, model=model), attributions, config=config, seeds=seeds)
    return Made(section=section, events=tuple(journal.events), drawn=frozenset(seeds.drawn))


def _refuse(X: pd.DataFrame) -> Response:
    msg = "the model is asked in the first process only"
    raise RuntimeError(msg)


def judge(explanation: Explanation) -> tuple[Status, str]:
    """Return status and reason: incomplete without a required section, degraded with named caveats, else complete."""
    absent = [name for name in explanation.required if name in explanation.missing]
    if absent:
        return "incomplete", "; ".join(f"{name}: {explanation.missing[name]}" for name in absent)
    reasons = [f"{name}: {reason}" for name, reason in explanation.missing.items()]
    reasons += [c.message for c in explanation.caveats if c.degrades]
    if reasons:
        return "degraded", "; ".join(dict.fromkeys(reasons))
    return "complete", "every required section is present"


def _attempt(
    name: str, make: Callable[[], T], *, journal: Journal, missing: dict[str, str], config: Config
) -> T | None:
    """Run one section; a failure costs that section and is named, never the others and never silently."""
    try:
        with journal.stage(name), threads.alone():
            return make()
    except NotApplicable as error:
        missing[name] = str(error)
    except CALLERS_FAULT:
        raise
    except Exception as error:  # noqa: BLE001 - recorded as the section's reason: the status says incomplete
        told = f"failed with {privacy.told(error, config=config)}"
        missing[name] = textwrap.shorten(mask_text(told), MOST_TOLD, placeholder=" \u2026")
    return None
