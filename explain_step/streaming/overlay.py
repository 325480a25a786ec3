"""The tables of a sample's explanation with the numbers of all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from explain_step.artifacts import importance
from explain_step.config import Config
from explain_step.streaming import of_measures
from explain_step.streaming.of_curves import dependence
from explain_step.streaming.of_measures import Measured, performance, rates
from explain_step.streaming.of_segments import (
    SAID,
    hidden_levels,
    level_names,
    segment_caveats,
    segments,
)
from explain_step.streaming.of_views import view
from explain_step.streaming.plan import Plan
from explain_step.streaming.totals import Totals
from explain_step.types import Artifact, Caveat

SECTION = "attributions"
SPREAD = "spread over the model's output"
SEARCH = "segment_search"
MEASURED = ("performance", "segment_rates", SEARCH)
"""Tables that need no attribution of any row."""
VIEWS = {"importance": "feature", "importance_groups": "group", "importance_clusters": "cluster"}


def overlay(
    artifacts: Sequence[Artifact],
    plan: Plan,
    totals: Totals,
    *,
    config: Config,
    known: Measured | None = None,
) -> tuple[Artifact, ...]:
    """Return the sample's artifacts, with the numbers of all rows where ``totals`` has them; ``meta`` says which.

    ``meta["rows_of"]`` names what is of all rows and what is of the sample; ``meta["quantity"]["rows"]`` counts the rows
    behind the attributions of the table.

    Parameters
    ----------
    artifacts : sequence of Artifact
        Of the sample's explanation, from which the plan was made.
    plan : Plan
    totals : Totals
        Of all rows.
    config : Config
    known : Measured, optional
        The performance of all rows, where the artifacts' is of the sample.
    """
    found = {a.name: _of_all(a, plan, totals, config=config, known=known) for a in artifacts}
    if {"importance", "dependence"} <= set(found):
        found["dependence"] = _in_order(found["dependence"], found["importance"])
    return tuple(found.values())


def measured_overlay(
    artifacts: Sequence[Artifact], plan: Plan, totals: Totals, known: Measured, *, config: Config
) -> tuple[Artifact, ...]:
    """Return the sample's artifacts with the performance of all rows, and nothing else of them.

    Parameters
    ----------
    plan : Plan
        Of `planning.measuring_plan`.
    """
    found = []
    for artifact in artifacts:
        made = artifact
        if artifact.name == "performance":
            made = performance(artifact, known, rows=totals.rows)
        elif artifact.name == "segments" and totals.atoms is not None:
            made = segments(artifact, plan, totals, config=config, known=known)
        elif artifact.name == "segment_rates" and totals.atoms is not None:
            made = _rates(artifact, plan, totals, config=config, known=known)
        elif artifact.name == SEARCH:
            made = replace(artifact, meta={**artifact.meta, "rows_of": _of_sample(artifact, plan, totals)})
        if made is not artifact:
            facts = {**artifact.meta.get("quantity", {}), "rows_given": totals.rows}
            made = replace(made, meta={**made.meta, "quantity": facts})
        found.append(made)
    return tuple(found)


def _in_order(dependence: Artifact, main: Artifact) -> Artifact:
    """Return the curves in the order of importance, which all rows may have in another order than the sample."""
    whole = main.table[main.table["output"] == main.table["output"].iloc[-1]]
    order = {name: place for place, name in enumerate(whole["feature"])}
    table = dependence.table.sort_values("feature", key=lambda names: names.map(order), kind="stable")
    return replace(dependence, table=table.reset_index(drop=True))


def _of_all(
    artifact: Artifact, plan: Plan, totals: Totals, *, config: Config, known: Measured | None
) -> Artifact:
    rows = totals.rows
    if artifact.name in VIEWS:
        found = view(artifact, plan, totals, label=VIEWS[artifact.name])
    elif artifact.name == "dependence":
        found = dependence(artifact, plan, totals, config=config)
    elif artifact.name == "segments" and totals.atoms is not None:
        found = segments(artifact, plan, totals, config=config, known=known)
    elif artifact.name == "performance" and known is not None:
        found = performance(artifact, known, rows=rows)
    elif artifact.name == "segment_rates" and known is not None and totals.atoms is not None:
        found = _rates(artifact, plan, totals, config=config, known=known)
    else:
        said = _of_sample(artifact, plan, totals)
        if plan.measured_rows == rows and artifact.name in MEASURED:
            said = f"everything here is of all {rows:,} rows"
        elif plan.measured_rows == rows and artifact.name == "segments":
            said = f"counts and metric: of all {rows:,} rows; importance: of a seeded sample of {plan.sample_rows:,} of them"
        found = replace(artifact, meta={**artifact.meta, "rows_of": said})
        rows = rows if artifact.name in MEASURED and plan.measured_rows == rows else plan.sample_rows
    return replace(found, meta={**found.meta, "quantity": counted(found.meta, rows=rows, given=totals.rows)})


def _of_sample(artifact: Artifact, plan: Plan, totals: Totals) -> str:
    # the page says it beside what is of all rows
    what = "groups found by search are" if artifact.name == SEARCH else "everything here is"
    return f"{what} of a seeded sample of {plan.sample_rows:,} of the {totals.rows:,} rows"


def _rates(artifact: Artifact, plan: Plan, totals: Totals, *, config: Config, known: Measured) -> Artifact:
    names = [level_names(s, counts) for s, counts in zip(plan.segments, totals.segments, strict=True)]
    hidden = hidden_levels(plan, totals, config=config)
    return rates(artifact, known, names=names, hidden=hidden, config=config, rows=totals.rows)


def counted(meta: Any, *, rows: int, given: int) -> dict[str, Any]:
    """Return the quantity in ``meta`` with its numbers of rows."""
    return {**meta.get("quantity", {}), "rows": rows, "rows_given": given}


def caveats(
    said: Sequence[Caveat],
    artifacts: Sequence[Artifact],
    plan: Plan,
    totals: Totals,
    *,
    config: Config,
    drawn: str = SPREAD,
    known: Measured | None = None,
) -> tuple[Caveat, ...]:
    """Return the sample's caveats with those on ranks and segments as all rows have them, and one on the two kinds of rows.

    Parameters
    ----------
    said : sequence of Caveat
        Of the sample's explanation.
    artifacts : sequence of Artifact
        What `overlay` returned.
    drawn : str
        How the sample was drawn.
    known : Measured, optional
        The performance of all rows, where the artifacts' was of the sample.
    """
    tables = {a.name: a for a in artifacts}
    counted_anew = "segments" in tables and totals.atoms is not None
    gone = {importance.TIED, "few_rows", *(SAID if counted_anew else ())}
    gone |= set() if known is None else set(of_measures.SAID)
    found = [c for c in said if c.code not in gone]
    found += importance.ties(tables["importance"].table) if "importance" in tables else []
    found += segment_caveats(tables["segments"].table, plan, config=config) if counted_anew else []
    found += [] if known is None else of_measures.measured_caveats(said, tables, known)
    return (*found, streamed(plan, totals, drawn=drawn, known=known, tables=tables))


def measured_caveats(
    said: Sequence[Caveat], artifacts: Sequence[Artifact], plan: Plan, known: Measured, *, config: Config
) -> tuple[Caveat, ...]:
    """Return the sample's caveats with those on performance and on counts of segments as all rows have them."""
    tables = {a.name: a for a in artifacts}
    anew = set(SAID) - {"segments_few_explained"} if "segments" in tables else set()
    found = [c for c in said if c.code not in anew | set(of_measures.SAID)]
    found += segment_caveats(tables["segments"].table, plan, config=config) if "segments" in tables else []
    return (*found, *of_measures.measured_caveats(said, tables, known))


def streamed(
    plan: Plan, totals: Totals, *, drawn: str, known: Measured | None, tables: Mapping[str, Artifact]
) -> Caveat:
    """Return the caveat that says what is of all rows, and what of the sample."""
    kept = [*plan.kept, *(["every segment"] if plan.segments and totals.atoms is None else [])]
    measured = plan.measured_rows == totals.rows or known is not None
    of_all = ", and so is performance" if measured and "performance" in tables else ""
    searched = known is not None and SEARCH in tables
    others = "" if measured else "performance, "
    others += "the search for groups where the model performs worse, " if searched else ""
    text = (
        f"All {totals.rows:,} rows are explained and checked; importance, the mean contributions along inputs and the "
        f"importance in segments are of all of them{of_all}. Everything else "
        f"({others}the loss when inputs are shuffled, interactions, examples, "
        f"scores, other curves, where their bins are cut) is of a seeded sample of {plan.sample_rows:,} of them, {drawn}."
    )
    if kept:
        text += f" So is the importance in or along {', '.join(map(repr, kept))}."
    if known is not None and (without := known.unknown()):
        text += f" So is {', '.join(without)}, which no sums tell."
    return Caveat(code="rows_streamed", section=SECTION, message=text)
