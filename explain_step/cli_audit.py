"""The command ``audit``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from explain_step.cli_base import NO, UNDECIDED, YES, common, print_json, working

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 200
"""Problems that are listed as text; all of them are in the JSON."""


@click.command()
@click.option("--experiment", "experiments", multiple=True, metavar="NAME|ID", help="Audit this experiment.")
@click.option(
    "--registered-model", "registered_models", multiple=True, metavar="NAME", help="Audit its versions."
)
@click.option("--all", "everything", is_flag=True, help="Audit every experiment and registered model.")
@click.option(
    "--policy", type=click.Path(dir_okay=False), help="What is protected, and by what. Default: built in."
)
@click.option(
    "--quick/--full",
    "quick",
    default=True,
    help="Manifest, owner, presence and sizes (default), or every byte. Protected versions: always all bytes.",
)
@click.option("--mark", is_flag=True, help="Write the derived status to tags that say otherwise.")
@click.option("--fail-runs", is_flag=True, help="With --mark: finished runs without explanation are FAILED.")
@click.option("--fail", is_flag=True, help="Exit code 1 when anything is incomplete, 3 when unreadable.")
@click.option("--dry-run", is_flag=True, help="Write nothing; show what --mark would write.")
@common
def audit(
    *,
    experiments: tuple[str, ...],
    registered_models: tuple[str, ...],
    everything: bool,
    policy: str | None,
    quick: bool,
    mark: bool,
    fail_runs: bool,
    fail: bool,
    dry_run: bool,
    as_json: bool,
    tracking_uri: str | None,
    verbose: bool,
) -> int:
    """List what is stored without a valid explanation: runs, logged models, versions, protected aliases.

    The status comes from the manifest and the files it names, never from a tag. Say what to audit:
    --experiment, --registered-model (both can be repeated) or --all.
    """
    if everything == bool(experiments or registered_models):
        msg = "Say what to audit: --experiment NAME, --registered-model NAME, or --all alone."
        raise click.UsageError(msg)
    if fail_runs and not mark:
        msg = "--fail-runs needs --mark."
        raise click.UsageError(msg)
    from explain_step.tracking.auditing import audit as examine

    with working(verbose=verbose), _progress() as tick:
        found = examine(
            experiments=experiments,
            registered_models=registered_models,
            policy=policy,
            full=not quick,
            mark=mark,
            fail_runs=fail_runs,
            dry_run=dry_run,
            tracking_uri=tracking_uri,
            progress=tick,
        )
    _report(found, as_json=as_json, verbose=verbose)
    return exit_code(found) if fail else YES


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Show how many objects were looked at, on a terminal only; how many there are is not known before."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    done = 0
    shown: Any = click.progressbar(
        length=1,
        label="auditing",
        file=sys.stderr,
        show_eta=False,
        show_percent=False,
        item_show_func=lambda _: f"{done} objects",
    )
    with shown as bar:

        def tick(count: int) -> None:
            nonlocal done
            done += count
            bar.render_progress()

        yield tick
        bar.update(1)


def exit_code(found: pd.DataFrame) -> int:
    """Return 1 where anything fails, else 3 where something could not be decided, else 0."""
    verdicts = set(found["verdict"])
    return NO if "fail" in verdicts else UNDECIDED if "undecided" in verdicts else YES


def _report(found: pd.DataFrame, *, as_json: bool, verbose: bool) -> None:
    if as_json:
        print_json({"exit_code": exit_code(found), "counts": _counts(found), "objects": _records(found)})
        return
    from explain_step.terminal import clean

    told = found[found["codes"].ne("") | found["change"].ne("")]
    for row in _records(told if verbose else told.head(SHOWN)):
        mark = {"fail": "red", "undecided": "yellow"}.get(row["verdict"])
        what = row["problem"] or row["reason"]
        click.echo(
            f"{click.style(row['codes'] or 'ok', fg=mark)}  {row['kind']} {clean(row['name'])}  "
            f"{row['status']} (tag: {clean(row['tag_status'] or 'none', width=40)})"
        )
        click.echo(f"        {clean(what)}")
        if row["change"]:
            click.echo(f"        {clean(row['change'])}")
    if len(told) > SHOWN and not verbose:
        click.echo(f"… and {len(told) - SHOWN} more: --verbose or --json lists all")
    for kind, statuses in _counts(found).items():
        words = (f"{n} {status.replace('_', ' ')}" for status, n in sorted(statuses.items()))
        click.echo(f"{kind:<17}{', '.join(words)}")


def _counts(found: pd.DataFrame) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for kind, status in zip(found["kind"], found["status"], strict=True):
        of_kind = counts.setdefault(str(kind), {})
        of_kind[str(status)] = of_kind.get(str(status), 0) + 1
    return counts


def _records(found: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in found.to_dict("records")]
