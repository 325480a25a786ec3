"""The command ``resume``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from explain_step.cli_base import NO, UNDECIDED, YES, common, print_json, working

if TYPE_CHECKING:
    from explain_step.resuming import Resumed

WORDS = {
    "stored": ("stored", "green"),
    "waiting": ("waiting", None),
    "refused": ("refused", "red"),
    "no_answer": ("no answer", "yellow"),
}


@click.command()
@click.option(
    "--spool",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of unsent snapshots. Default: EXPLAIN_STEP_SPOOL, or the user's data folder.",
)
@click.option("--dry-run", is_flag=True, help="List what waits; send nothing.")
@common
def resume(
    *, spool: Path | None, dry_run: bool, as_json: bool, tracking_uri: str | None, verbose: bool
) -> int:
    """Store in MLflow what a step could not store: the server was down, or the process was killed.

    Evidence, copy on the run, metrics and tags are written as the step would have. What is stored leaves the
    spool, so a second call has nothing to do. --tracking-uri sends every entry there instead of where it was meant
    to go.

    Exit codes: 0 all done, 1 something is refused and stays, 3 a server gave no answer.
    """
    from explain_step.resuming import resume as finish
    from explain_step.tracking.spool import spool_folder

    with working(verbose=verbose):
        done = finish(spool=spool, tracking_uri=tracking_uri, dry_run=dry_run)
    if as_json:
        folder = str(spool or spool_folder())
        print_json({"spool": folder, "dry_run": dry_run, "entries": [_plain(r) for r in done]})
    else:
        _show(done, folder=spool or spool_folder())
    outcomes = {r.outcome for r in done}
    return UNDECIDED if "no_answer" in outcomes else NO if "refused" in outcomes else YES


def _plain(resumed: Resumed) -> dict[str, Any]:
    return {**asdict(resumed), "path": str(resumed.path)}


def _show(done: tuple[Resumed, ...], *, folder: Path) -> None:
    from explain_step.terminal import clean

    if not done:
        click.echo(f"nothing to resume in {folder}")
    for found in done:
        word, colour = WORDS[found.outcome]
        where = found.model_uri or f"runs:/{found.run_id}"
        click.echo(f"{click.style(word, fg=colour, bold=True)}: {found.snapshot_id[:12]} of {clean(where)}")
        click.echo(f"  {clean(found.message)}")
        if found.outcome != "stored":
            click.echo(f"  kept in {found.path}")
