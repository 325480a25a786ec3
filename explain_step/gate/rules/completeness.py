"""Whether the snapshot has everything that the policy asks of every version."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pandas as pd

from explain_step.gate.evidence import Evidence
from explain_step.gate.naming import named
from explain_step.gate.policy import Policy
from explain_step.gate.rules.base import Rule, found, of_snapshot
from explain_step.gate.rules.tables import Lacking, as_mapping, perturbation, quantity, table
from explain_step.types import Finding

NUMBERS = {"importance": "mean_abs_shap", "dependence": "value", "segments": "n", "examples": "shap"}
"""The column of each section's table without which it says nothing."""
ALL_ROWS = "(all rows)"
SKEW = timedelta(minutes=5)
"""Clocks of two machines may differ by so much."""
DAY = 86_400.0


def _status(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    status, reason = evidence.manifest.get("status"), evidence.manifest.get("reason")
    accepted = policy.require.status
    facts = {"status": status, "reason": reason, "accepted": accepted}
    if status in accepted:
        why = f": {reason}" if status == "degraded" else ""
        yield found("GATE010", "pass", f"the snapshot is {status}{why}", **facts)
    else:
        message = f"the snapshot is {named(status)} ({reason}); accepted is {' or '.join(accepted)}"
        yield found("GATE010", "fail", message, **facts)


def _sections(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    wanted = policy.require.sections
    if not wanted:
        yield found("GATE011", "not_applicable", "the policy requires no section")
        return
    problems = [(name, _lacks(evidence, name)) for name in wanted]
    for name, problem in problems:
        if problem is not None:
            yield found("GATE011", "fail", f"the section {name} is not there: {problem}", section=name)
    if all(problem is None for _, problem in problems):
        yield found("GATE011", "pass", f"{', '.join(wanted)} are there", sections=wanted)


def _lacks(evidence: Evidence, name: str) -> str | None:
    """Return why a section does not count: the manifest's word and the table's content must agree."""
    section = as_mapping(as_mapping(evidence.manifest.get("sections")).get(name))
    if section.get("state") != "present":
        return str(section.get("reason") or "the manifest does not name it as present")
    frame = table(evidence, name, numbers=(NUMBERS[name],))
    if isinstance(frame, Lacking):
        return frame.reason
    if not bool(frame[NUMBERS[name]].notna().any()):
        return f"the table `{name}` has no number"
    if name == "segments":
        return _compares_none(evidence)
    return _uncovered(evidence) if name == "importance" else None


def _compares_none(evidence: Evidence) -> str | None:
    """Return that no group of rows is shown beside all rows: so few rows were explained, or all groups are withheld."""
    frame = table(evidence, "segments", text=("segment",), numbers=("n",))
    if isinstance(frame, Lacking):
        return frame.reason
    shown = frame[(frame["segment"] != ALL_ROWS) & (frame["n"] > 0)]
    return "the table `segments` shows no group of rows" if shown.empty else None


def _uncovered(evidence: Evidence) -> str | None:
    """Return the input or output that the table of importance leaves out."""
    frame = table(evidence, "importance", text=("output", "feature"))
    if isinstance(frame, Lacking):
        return frame.reason
    listed = as_mapping(evidence.manifest.get("data")).get("features")
    named_outputs = quantity(evidence).get("outputs")
    for output in named_outputs if isinstance(named_outputs, list) else []:
        rows: pd.DataFrame = frame[frame["output"] == str(output)]
        there = set(rows["feature"])
        left_out = [f for f in (listed if isinstance(listed, list) else []) if str(f) not in there]
        if left_out or rows.empty:
            what = named(left_out[0]) if left_out else "every feature"
            return f"the table `importance` leaves out {what} for the output {named(output)}"
    return None


def _binding(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    model = as_mapping(evidence.manifest.get("model"))
    said, note, wanted = model.get("binding"), model.get("binding_note"), policy.require.binding
    facts = {"binding": said, "note": note, "required": wanted}
    if said == "verified":
        yield found("GATE012", "pass", "the logged model gives the explained predictions", **facts)
    elif said == wanted == "declared":
        yield found("GATE012", "pass", f"the binding is declared, as the policy accepts: {note}", **facts)
    else:
        message = f"the binding is {named(said)}, required is {wanted}: {note}"
        yield found("GATE012", "fail", message, **facts)


def _age(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    made, limit = _moment(evidence.manifest.get("created_at")), policy.require.max_age_days
    if made is None:
        said = named(evidence.manifest.get("created_at"))
        yield found("GATE013", "fail", f"the snapshot's time {said} is no time with a time zone")
        return
    days = (evidence.now - made).total_seconds() / DAY
    facts = {"created_at": made.isoformat(), "days": days, "max_age_days": limit}
    if made > evidence.now + SKEW:
        message = f"the snapshot was made in the future ({made.isoformat()}): check the clocks"
        yield found("GATE013", "fail", message, **facts)
    elif limit is not None and days > limit:
        message = f"the snapshot is {days:.1f} days old; at most {limit:g} are allowed: explain again"
        yield found("GATE013", "fail", message, **facts)
    else:
        limited = "no largest age is set" if limit is None else f"at most {limit:g} are allowed"
        message = f"the snapshot is {max(days, 0.0):.1f} days old; {limited}"
        yield found("GATE013", "pass", message, **facts)


def _moment(text: object) -> datetime | None:
    """Return a time with its zone; None for anything else."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def _rows(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    rows, least = quantity(evidence).get("rows"), policy.require.min_rows
    facts = {"rows": rows, "min_rows": least}
    if type(rows) is not int:
        yield found("GATE014", "fail", "the snapshot does not say how many rows are explained", **facts)
    elif rows < least:
        message = f"{rows} rows are explained; at least {least} are required"
        yield found("GATE014", "fail", message, **facts)
    else:
        yield found("GATE014", "pass", f"{rows} rows are explained", **facts)


def _exact(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    said = quantity(evidence)
    facts = {"exact": said.get("exact"), "method": said.get("method")}
    if not policy.require.exact:
        yield found("GATE015", "not_applicable", "the policy accepts estimated attributions", **facts)
    elif said.get("exact") is True:
        yield found("GATE015", "pass", f"the attributions are exact ({said.get('method')})", **facts)
    else:
        message = f"the attributions are estimated ({said.get('method')}); exact ones are required"
        yield found("GATE015", "fail", message, **facts)


def _perturbation(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    said, wanted = perturbation(quantity(evidence)), policy.require.feature_perturbation
    facts = {"feature_perturbation": said, "required": list(wanted)}
    asked = perturbation(as_mapping(evidence.manifest.get("config")))
    if said != asked:
        message = f"the attributions are {named(said)}, but its options asked for {named(asked)} ones"
        yield found("GATE016", "fail", message, **facts)
    elif said in wanted:
        yield found("GATE016", "pass", f"the attributions are {said}", **facts)
    else:
        message = f"the attributions are {named(said)}; accepted is {' or '.join(wanted)}"
        yield found("GATE016", "fail", message, **facts)


_TITLES = (
    ("GATE010", "The snapshot's status is accepted", _status),
    ("GATE011", "Every required section is there", _sections),
    ("GATE012", "The logged model gives the explained predictions", _binding),
    ("GATE013", "The snapshot is recent", _age),
    ("GATE014", "Enough rows are explained", _rows),
    ("GATE015", "The attributions are exact", _exact),
    ("GATE016", "The attributions are of an accepted quantity", _perturbation),
)
COMPLETENESS = tuple(Rule(code=c, title=t, check=of_snapshot(c, f)) for c, t, f in _TITLES)
