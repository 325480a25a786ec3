"""The command ``replay``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from explain_step.cli_base import NO, UNDECIDED, YES, common, print_json, working

if TYPE_CHECKING:
    from explain_step.replay_result import Replay

COLOURS = {"different": "red", "not_replayable": "yellow"}
ROWS = click.Path(exists=True, dir_okay=False)


@click.command()
@click.argument("source")
@click.option("--data", type=ROWS, help="The explained rows (Parquet, CSV). Default: the recorded source.")
@click.option("--target", help="Column of the data with the labels. Default: the recorded target.")
@click.option("--background", type=ROWS, help="Background rows, where the recording had any.")
@click.option("--sample-weight", metavar="COLUMN", help="Column of the data with weights.")
@click.option("--model", metavar="MODEL", help="URI or directory. Default: the recorded logged model.")
@click.option(
    "--policy",
    type=ROWS,
    help="Both sides are judged by it; a changed verdict is a difference. Default: the built-in policy.",
)
@click.option(
    "--env",
    type=click.Choice(["current", "recreate"]),
    default="current",
    show_default=True,
    help="Replay here, or in the recorded environment, rebuilt with uv.",
)
@click.option(
    "--wheels",
    type=click.Path(exists=True, file_okay=False),
    help="With --env recreate: folder of wheels; nothing is downloaded.",
)
@click.option("--figures/--no-figures", default=True, help="Draw figures too and compare their bytes.")
@common
def replay(
    source: str,
    *,
    target: str | None,
    as_json: bool,
    tracking_uri: str | None,
    verbose: bool,
    **given: Any,
) -> int:
    """Recompute a snapshot and compare every table with the stored one.

    SOURCE is a snapshot directory, runs:/…, models:/name/1 or models:/name@alias. Each table gets a verdict by the
    tolerance that was recorded with it: identical, within_tolerance, consistent (statistically, where a time budget cut
    the work), different, or not_replayable. What differs among model, data, config, seed, environment and code is
    named. Exit code 0: it replays. 1: different. 3: it cannot be replayed.
    """
    from explain_step import replaying

    with working(verbose=verbose):
        result = replaying.replay(source, y=target, tracking_uri=tracking_uri, **given)
    if as_json:
        print_json({"source": source, **result.record()})
    else:
        _show(result)
    if result.verdict == "not_replayable":
        return UNDECIDED
    return YES if result.replays else NO


def _show(result: Replay) -> None:
    from explain_step.terminal import clean

    verdict = click.style(result.verdict, fg=COLOURS.get(result.verdict, "green"), bold=True)
    click.echo(f"{verdict}: {clean(result.reason)}")
    for table in result.tables:
        shown = click.style(f"{table.verdict:<17}", fg=COLOURS.get(table.verdict))
        click.echo(f"  {shown}{table.name:<22}{table.kind:<12}{clean(table.reason)}".rstrip())
    for found in result.inputs:
        click.echo(f"{found.input:<13}{clean(found.message)}")
    for note in result.notes:
        click.echo(f"{'note':<13}{clean(note)}")
    if result.gate:
        gate = result.gate
        click.echo(f"{'gate':<13}{gate['recorded']} before, {gate['replayed']} now ({clean(gate['policy'])})")
    other = result.files.get("other_bytes")
    if other:
        click.echo(
            f"{'files':<13}{len(other)} figures or pages have other bytes: {clean(', '.join(other[:4]))}"
        )
