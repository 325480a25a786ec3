"""The commands ``gate``, ``promote`` and ``review``."""

from __future__ import annotations

import re
import shutil
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from explain_step.cli_base import NO, UNDECIDED, YES, Command, common, print_json, working

if TYPE_CHECKING:
    from explain_step.gate.decision import GateDecision
    from explain_step.gate.report import Row
    from explain_step.types import Finding

EXIT_CODES = {"allow": YES, "refuse": NO, "undecided": UNDECIDED}
WORDS = {"allow": "allowed", "refuse": "refused", "undecided": "undecided"}
COLOURS = {"allow": "green", "refuse": "red", "undecided": "yellow"}
VERDICT_COLOURS = {"pass": "green", "fail": "red", "undecided": "yellow", "waived": "yellow"}
NARROWEST = 30
PEOPLE = ("GATE060", "GATE061", "GATE062")
AGAIN = ("GATE010", "GATE011", "GATE012", "GATE013", "GATE014", "GATE015", "GATE016")
"""What another snapshot of the same model may hold."""
NAMED = ("GATE020", "GATE021", "GATE040", "GATE041", "GATE042", "GATE043")
"""Without a value in their evidence: the snapshot has nothing of the name that the policy gives."""
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(m|h|d)")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _judging(command: Command) -> Command:
    """Add the options of every command that decides."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Write nothing to MLflow."),
        click.option(
            "--approval-tag",
            metavar="NAME",
            help="Tag of the version to set to approved or rejected (Databricks deployment jobs).",
        ),
        click.option(
            "--junit",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write the findings as JUnit XML to this file, for CI.",
        ),
        click.option(
            "--policy",
            type=click.Path(exists=True, dir_okay=False),
            help="YAML or JSON file. Default: the built-in policy.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("model_uri")
@_judging
@common
def gate(
    model_uri: str,
    *,
    policy: str | None,
    junit: Path | None,
    approval_tag: str | None,
    dry_run: bool,
    as_json: bool,
    tracking_uri: str | None,
    verbose: bool,
) -> int:
    """Judge a registered version by a policy, without changing anything.

    MODEL_URI is models:/name/1 or models:/name@alias. Exit code 0: every rule holds. 1: refused. 3: undecided
    (an interval straddles its bound, or evidence could not be read).
    """
    from explain_step import promotion

    with working(verbose=verbose):
        decision = promotion.gate(
            model_uri, policy, approval_tag=approval_tag, dry_run=dry_run, tracking_uri=tracking_uri
        )
    return _report(decision, as_json=as_json, junit=junit)


@click.command()
@click.argument("model_uri")
@click.option("--alias", required=True, help="Alias to move, for example champion.")
@click.option("--by", metavar="NAME", help="Who asks, for the log. Default: your name for MLflow, or the OS.")
@click.option("--break-glass", is_flag=True, help="Promote against the rules; the policy must permit it.")
@click.option("--owner", help="With --break-glass: who answers for it.")
@click.option("--reason", help="With --break-glass: why.")
@click.option("--expires", metavar="TIME", help="With --break-glass: until when (2026-01-31T18:00Z, or 4h).")
@_judging
@common
def promote(
    model_uri: str,
    *,
    alias: str,
    policy: str | None,
    by: str | None,
    junit: Path | None,
    approval_tag: str | None,
    dry_run: bool,
    as_json: bool,
    tracking_uri: str | None,
    verbose: bool,
    **glass: Any,
) -> int:
    """Move an alias to a registered version, where the policy allows it.

    MODEL_URI is models:/name/1 or models:/name@alias. The decision is logged first; after the move the evidence
    is judged again, and where it changed meanwhile the alias is moved back.
    """
    from explain_step import promotion

    use = _break_glass(**glass)
    with working(verbose=verbose):
        decision = promotion.promote(
            model_uri,
            alias,
            policy=policy,
            dry_run=dry_run,
            break_glass=use,
            by=by,
            approval_tag=approval_tag,
            tracking_uri=tracking_uri,
        )
    code = _report(decision, as_json=as_json, junit=junit)
    if not as_json:
        click.echo(_outcome(decision, alias=alias, dry_run=dry_run))
    return code


@click.command()
@click.argument("model_uri")
@click.option("--approve", is_flag=True, help="The explanation was read and the model may go on.")
@click.option("--reject", is_flag=True, help="The version must not be promoted.")
@click.option("--note", required=True, help="What you looked at, and why you approve or reject.")
@click.option("--reviewer", metavar="NAME", help="Default: your name for MLflow, or the OS.")
@click.option("--dry-run", is_flag=True, help="Check everything and write nothing to MLflow.")
@common
def review(
    model_uri: str,
    *,
    approve: bool,
    reject: bool,
    note: str,
    reviewer: str | None,
    dry_run: bool,
    as_json: bool,
    tracking_uri: str | None,
    verbose: bool,
) -> int:
    """Approve or reject the explanation snapshot of a registered version.

    MODEL_URI is models:/name/1 or models:/name@alias. The review is bound to the snapshot as it is now.
    """
    from explain_step import promotion

    if approve == reject:
        msg = "Give either --approve or --reject."
        raise click.UsageError(msg)
    with working(verbose=verbose):
        found = promotion.review(
            model_uri,
            decision="approve" if approve else "reject",
            note=note,
            reviewer=reviewer,
            dry_run=dry_run,
            tracking_uri=tracking_uri,
        )
    if as_json:
        from dataclasses import asdict

        print_json({**asdict(found), "at": found.at.isoformat(), "dry_run": dry_run})
        return YES
    from explain_step.terminal import clean

    word = "approved" if approve else "rejected"
    click.echo(f"{click.style(word, fg='green' if approve else 'red', bold=True)}  {clean(model_uri)}")
    click.echo(f"snapshot  {clean(found.snapshot_id)}")
    click.echo(f"reviewer  {clean(found.reviewer)}")
    click.echo(f"note      {clean(found.note)}")
    if dry_run:
        click.echo("dry run: nothing was written")
    return YES


def _break_glass(
    *, break_glass: bool, owner: str | None, reason: str | None, expires: str | None
) -> dict[str, Any] | None:
    given = {"owner": owner, "reason": reason, "expires": expires}
    if not break_glass:
        if any(value is not None for value in given.values()):
            msg = "--owner, --reason and --expires belong to --break-glass; add it, or leave them out."
            raise click.UsageError(msg)
        return None
    missing = [f"--{key}" for key, value in given.items() if value is None]
    if missing:
        msg = f"--break-glass needs {', '.join(missing)}: it is logged with owner, reason and expiry."
        raise click.UsageError(msg)
    length = DURATION.fullmatch(str(expires).strip())
    return given if length is None else {**given, "expires": _after(float(length[1]), UNITS[length[2]])}


def _after(number: float, unit: str) -> datetime:
    try:
        return datetime.now(UTC) + timedelta(**{unit: number})
    except OverflowError as error:
        msg = f"--expires must be a time that there is, not {number:g} {unit} from now."
        raise click.UsageError(msg) from error


def _report(decision: GateDecision, *, as_json: bool, junit: Path | None) -> int:
    """Print a decision; return its exit code."""
    from explain_step.gate import report

    code = EXIT_CODES[decision.outcome]
    if junit is not None:
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.write_text(report.junit(decision), encoding="utf-8")
    if as_json:
        from explain_step.canonical import plain_json

        facts = {"allowed": decision.allowed, "summary": decision.summary, "exit_code": code}
        print_json(plain_json({**decision.record(), **facts}))
    else:
        click.echo(_page(decision, report.table(decision)))
    return code


def _page(decision: GateDecision, rows: list[Row]) -> str:
    """Return the decision, its findings and what to do next, wrapped to the terminal."""
    from explain_step.terminal import clean

    width = shutil.get_terminal_size().columns
    word = click.style(WORDS[decision.outcome], fg=COLOURS[decision.outcome], bold=True)
    asked = "" if decision.request.target is None else f" for {decision.request}"
    head = f"models:/{decision.name}/{decision.version}{asked}, policy {decision.policy_name!r}"
    lines = [f"{word}  {clean(head)}"]
    if decision.break_glass is not None:
        lines += _wrapped(clean(decision.summary), width)
    lines.append("")
    for row in rows:
        if row.verdict != "not_applicable":
            lines += _lines(row, width)
    unasked = sorted({row.code for row in rows if row.verdict == "not_applicable"})
    if unasked:
        lines += _wrapped(f"{len(unasked)} rules do not apply: {', '.join(unasked)}", width)
    steps = dict.fromkeys(_next(f, decision) for f in decision.blocking)
    for step in filter(None, steps):
        lines += ["", *_wrapped(f"next: {clean(step)}", width)]
    return "\n".join(lines)


def _lines(row: Row, width: int) -> list[str]:
    """Return one finding as lines; on a narrow terminal the text goes below its code."""
    from explain_step.terminal import clean

    code, verdict = clean(row.code), click.style(f"{row.verdict:<9}", fg=VERDICT_COLOURS.get(row.verdict))
    title = f"{clean(row.title)}: " if row.title else ""
    text, margin = f"{title}{clean(row.message)}", len(code) + len("undecided") + 4
    if width - margin >= NARROWEST:
        first, *rest = _wrapped(text, width - margin)
        return [f"{code}  {verdict}  {first}", *(f"{'':{margin}}{line}" for line in rest)]
    return [f"{code}  {verdict.rstrip()}", *(f"  {line}" for line in _wrapped(text, width - 2))]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_on_hyphens=False) or [""]


def _next(finding: Finding, decision: GateDecision) -> str:
    """Return what to do about a finding that stands against the version; '' where its message says it."""
    from explain_step.gate.rules import INTEGRITY

    code = finding.code
    explain = f"explain-step run models:/{decision.name}/{decision.version} <held-out rows> --target <label>"
    if code == "GATE001":
        return "try again when the tracking server and the artifact store answer"
    if code == "GATE002":
        return f"explain the version: {explain}"
    if code in INTEGRITY:
        return f"explain the stored model again: {explain}"
    if not code.startswith("GATE") or code in PEOPLE:
        return ""
    if finding.verdict == "undecided":
        bounded = finding.evidence.get("ci_low") is not None
        more = "explain more held-out rows for narrower intervals, or change the bound"
        return f"{code} is undecided: {more if bounded else 'no interval decides it; its message says what is missing'}"
    if code in AGAIN:
        return f"{code}: explain the version again: {explain}"
    if "value" not in finding.evidence and code in NAMED:
        return f"{code}: correct the name in the policy, or explain the version with what it names"
    return f"{code}: change the model, or let its owner waive the rule in the policy (owner, reason, expires)"


def _outcome(decision: GateDecision, *, alias: str, dry_run: bool) -> str:
    """Say in one line what became of the alias."""
    from explain_step.terminal import clean

    name = clean(alias)
    if decision.findings and decision.findings[0].code.startswith("PROMOTE"):
        return clean(decision.findings[0].message)
    if not decision.allowed:
        return f"alias {name!r} was not moved" if not dry_run else f"dry run: alias {name!r} would not move"
    where = f"version {clean(decision.version)} of {clean(decision.name)}"
    return (
        f"dry run: alias {name!r} would point to {where}" if dry_run else f"alias {name!r} points to {where}"
    )
