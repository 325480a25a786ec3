"""The command ``export``."""

from __future__ import annotations

from pathlib import Path

import click

from explain_step.cli_base import YES, common, print_json, working


@click.command()
@click.argument("source")
@click.option(
    "--to", required=True, type=click.Path(path_type=Path), help="New folder, or a file that ends in .zip."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["bundle", "cyclonedx", "ro-crate", "croissant"]),
    default="bundle",
    show_default=True,
    help="A replay bundle, or a description in the terms of a standard.",
)
@click.option("--model/--no-model", default=True, help="Put the files of the explained model in (bundle).")
@common
def export(
    source: str,
    *,
    to: Path,
    form: str,
    model: bool,
    as_json: bool,
    tracking_uri: str | None,
    verbose: bool,
) -> int:
    """Write a replay bundle: what an auditor needs to verify a snapshot and to compute it again.

    SOURCE is a snapshot directory, runs:/…, models:/name/1 or models:/name@alias. The bundle holds the snapshot, the
    model's files (their digest is compared first), options, environment and instructions; never the rows. The same
    snapshot gives the same bytes.

    --format cyclonedx writes a bill of materials (model, rows, libraries) to a new .json file; ro-crate and croissant write
    the snapshot with the metadata of these standards. Each needs the library that is made for it.
    """
    from explain_step import exporting

    with working(verbose=verbose):
        if form == "bundle":
            done = exporting.export(source, to, model=model, tracking_uri=tracking_uri)
        else:
            done = exporting.describe(source, to, form=form, tracking_uri=tracking_uri)
    if as_json:
        print_json(
            {
                "path": str(done.path),
                "snapshot_id": done.snapshot_id,
                "files": list(done.files),
                "model": done.model,
            }
        )
        return YES
    click.echo(f"{click.style('exported', fg='green', bold=True)}: snapshot {done.snapshot_id[:12]}")
    click.echo(f"{form:<10}{done.path} ({len(done.files)} files)")
    click.echo(f"model     {done.model}")
    return YES
