"""The command ``verify``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from explain_step.cli_base import NO, YES, common, print_json, working

if TYPE_CHECKING:
    from explain_step.snapshot.openssf import OpenSSFFound
    from explain_step.snapshot.timestamps import TimestampFound
    from explain_step.types import Finding

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("source")
@click.option("--allowed-keys", type=FILE, help="File of key ids, one of which must have signed.")
@click.option("--timestamp", type=FILE, help="RFC 3161 time stamp of manifest.json (a .tsr file).")
@click.option(
    "--timestamp-authorities", type=FILE, help="PEM certificates of authorities whose time stamps count."
)
@click.option(
    "--openssf", type=FILE, help="OpenSSF signature of the model (of a directory: of the snapshot)."
)
@click.option("--openssf-key", type=FILE, help="PEM public key of --openssf.")
@common
def verify(
    source: str,
    *,
    allowed_keys: Path | None,
    timestamp: Path | None,
    timestamp_authorities: Path | None,
    openssf: Path | None,
    openssf_key: Path | None,
    as_json: bool,
    tracking_uri: str | None,
    verbose: bool,
) -> int:
    """Check every byte of a snapshot against its manifest; exit code 1 when anything differs.

    SOURCE is a snapshot directory, runs:/…, models:/name/1 or models:/name@alias. Each missing, extra or
    changed file is named; of a source in MLflow also whether the snapshot is that of the model. Says which level
    is reached: L0, the digests beside the files agree (accidents only); L1, the registry notes the same digest;
    L2, a key of --allowed-keys signed; L3, a listed authority says since when. With --allowed-keys L2 must be
    reached, with --timestamp L3: exit code 1 otherwise.
    """
    from explain_step.snapshot.signing import load_allowed_keys
    from explain_step.snapshot.verify import held_to
    from explain_step.tracking import verifying

    keys = () if allowed_keys is None else load_allowed_keys(allowed_keys)
    stamp = _stamp(timestamp, timestamp_authorities)
    signed = _signed(openssf, openssf_key)
    with working(verbose=verbose):
        findings = verifying.verify(
            source, allowed_keys=keys, timestamp=stamp, openssf=signed, tracking_uri=tracking_uri
        )
    findings = held_to(findings, keys=allowed_keys is not None, timestamp=timestamp is not None)
    passed = all(finding.verdict == "pass" for finding in findings)
    if as_json:
        plain = [asdict(finding) for finding in findings]
        print_json({"source": source, "verified": passed, "findings": plain})
        return YES if passed else NO
    for finding in findings:
        _print(finding)
    return YES if passed else NO


def _stamp(token: Path | None, authorities: Path | None) -> Callable[[bytes], TimestampFound] | None:
    from explain_step.snapshot.timestamps import check_timestamp, load_authorities

    if token is None:
        if authorities is not None:
            raise click.UsageError("--timestamp-authorities belongs to --timestamp.")
        return None
    listed = () if authorities is None else load_authorities(authorities)
    return partial(check_timestamp, token.read_bytes(), authorities=listed)


def _signed(bundle: Path | None, key: Path | None) -> Callable[..., OpenSSFFound] | None:
    from explain_step.snapshot.openssf import check_folder

    if (bundle is None) != (key is None):
        raise click.UsageError(
            "--openssf and --openssf-key belong together: the bundle, and the key you trust."
        )
    return None if bundle is None or key is None else partial(check_folder, bundle=bundle, public_key=key)


def _print(finding: Finding) -> None:
    from explain_step.terminal import clean

    mark = click.style(finding.verdict, fg="green" if finding.verdict == "pass" else "red")
    click.echo(f"{mark}  {finding.code}  {clean(finding.message)}")
    facts: dict[str, Any] = dict(finding.evidence)
    if "level" not in facts:
        return
    click.echo(f"snapshot  {facts['snapshot_id']}")
    click.echo(f"level     {facts['level']}")
    for level, reason in sorted(facts["lacking"].items()):
        click.echo(f"not {level}    {clean(reason)}")
    previous = facts["previous"]
    if previous["snapshot_id"] is not None:
        thin = previous["followed"] - previous["by_bytes"]
        said = f"{previous['snapshot_id'][:12]}; {previous['followed']} before it, {previous['end']}"
        said += f" ({thin} by content alone)" if thin else ""
        click.echo(f"previous  {clean(said)}")
    for fork in previous["forks"]:
        click.echo(
            f"fork      {fork['snapshot_id'][:12]} follows {fork['previous'][:12]} as well: two histories"
        )
    if "shown" in facts:
        click.echo(f"shown     {clean(facts['shown'])}")
    if "openssf" in facts:
        click.echo(f"openssf   {clean(facts['openssf'])}")
