"""The commands ``keygen`` and ``sign``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from explain_step.cli_base import YES, common, print_json, working

if TYPE_CHECKING:
    from explain_step.snapshot.signing import Signer


@click.command()
@click.argument("keyfile", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--openssf", is_flag=True, help="A P-256 key for sign --openssf; its public half goes to KEYFILE.pub."
)
@click.option("--dry-run", is_flag=True, help="Look whether the file can be made; make no key.")
@common
def keygen(
    keyfile: Path, *, openssf: bool, dry_run: bool, as_json: bool, tracking_uri: str | None, verbose: bool
) -> int:
    """Make an Ed25519 key for signing snapshots, and print its key id.

    KEYFILE is written with access for its owner alone, and never overwritten. Keep it away from training jobs:
    a signature by the trainer's own key proves little.
    """
    import base64

    if dry_run:
        return _could_be_made(keyfile, as_json=as_json)
    if openssf:
        return _pair(keyfile, as_json=as_json)
    from explain_step.snapshot.signing import generate

    signer = generate(keyfile)
    public = base64.b64encode(signer.public_key).decode()
    if as_json:
        print_json({"path": str(keyfile), "key_id": signer.key_id, "public_key": public})
        return YES
    click.echo(f"private key  {keyfile}")
    click.echo(f"public key   {public}")
    click.echo(f"key id       {signer.key_id}")
    click.echo(
        "allow it with a line '<key id> <owner>' in a file for verify --allowed-keys, or in the policy"
    )
    return YES


def _could_be_made(keyfile: Path, *, as_json: bool) -> int:
    if keyfile.exists() or not keyfile.parent.is_dir():
        why = "is there already" if keyfile.exists() else "would be in a folder that is not there"
        raise click.UsageError(f"KEYFILE must be a new file; {str(keyfile)!r} {why}.")
    if as_json:
        print_json({"path": str(keyfile), "dry_run": True})
    else:
        click.echo(f"dry run: no key was made; {keyfile} is free")
    return YES


def _pair(keyfile: Path, *, as_json: bool) -> int:
    from explain_step.snapshot.openssf import generate_pair

    private, public = generate_pair(keyfile)
    if as_json:
        print_json({"path": str(private), "public_path": str(public)})
        return YES
    click.echo(f"private key  {private}")
    click.echo(f"public key   {public}")
    return YES


@click.command()
@click.argument("source")
@click.option("--key", type=click.Path(dir_okay=False), help="PEM file. Default: EXPLAIN_STEP_SIGNING_KEY.")
@click.option("--key-command", metavar="COMMAND", help="Signs standard input, prints base64 (for a KMS).")
@click.option("--public-key", metavar="BASE64", help="Public key of --key-command: 32 raw bytes.")
@click.option(
    "--openssf",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Instead: sign the model's files for OpenSSF tools into this new file, with the EC key of --key.",
)
@click.option("--dry-run", is_flag=True, help="Verify what would be signed, and write nothing.")
@common
def sign(
    source: str,
    *,
    key: str | None,
    key_command: str | None,
    public_key: str | None,
    openssf: Path | None,
    dry_run: bool,
    as_json: bool,
    tracking_uri: str | None,
    verbose: bool,
) -> int:
    """Verify a snapshot and sign its manifest, which names every file.

    SOURCE is a snapshot directory, runs:/…, models:/name/1 or models:/name@alias. The signature is stored beside
    the manifest. With --openssf the logged model's files are signed instead (of a directory: the snapshot's), in the
    format of OpenSSF model signing, and the bundle goes to the file that you name.
    """
    from explain_step import tracking

    if openssf is not None:
        if key is None or key_command is not None or public_key is not None:
            raise click.UsageError(
                "--openssf needs --key, a PEM file of an elliptic-curve key, and no --key-command."
            )
        with working(verbose=verbose):
            found = tracking.sign_openssf(
                source, openssf, key=key, dry_run=dry_run, tracking_uri=tracking_uri
            )
        return _told(openssf, files=found.files, as_json=as_json, dry_run=dry_run)
    signer = _signer(key, command=key_command, public_key=public_key)
    with working(verbose=verbose):
        signed = tracking.sign(source, signer, dry_run=dry_run, tracking_uri=tracking_uri)
    facts = {"snapshot_id": signed.snapshot_id, "key_id": signed.key_id, "path": signed.path}
    if as_json:
        print_json({**facts, "dry_run": dry_run})
        return YES
    click.echo(f"{_done(dry_run)}: snapshot {signed.snapshot_id[:12]}")
    click.echo(f"key id    {signed.key_id}")
    click.echo(f"stored    {'nothing' if dry_run else signed.path}")
    return YES


def _done(dry_run: bool) -> str:
    return "dry run, nothing was written" if dry_run else click.style("signed", fg="green", bold=True)


def _told(bundle: Path, *, files: int, as_json: bool, dry_run: bool) -> int:
    if as_json:
        print_json({"path": str(bundle), "files": files, "dry_run": dry_run})
        return YES
    click.echo(f"{_done(dry_run)}: {files} files, for OpenSSF tools")
    click.echo(f"stored    {'nothing' if dry_run else bundle}")
    return YES


def _signer(key: str | None, *, command: str | None, public_key: str | None) -> Signer:
    from explain_step.snapshot.signing import command_signer, load_signer

    if command is None:
        if public_key is not None:
            raise click.UsageError("--public-key belongs to --key-command; a key file has its own.")
        return load_signer(key)
    if key is not None or public_key is None:
        raise click.UsageError("--key-command needs --public-key and takes no --key.")
    return command_signer(shlex.split(command), public_key=public_key)
