"""The replay bundle: a snapshot, the model that it explains, its environment, and how to check all of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explain_step import snapshot, tracking
from explain_step.errors import ExplainStepError, SnapshotError
from explain_step.replay_inputs import provenance_record
from explain_step.replay_recreate import plan_of
from explain_step.replay_result import recorded_uri
from explain_step.replaying import check_bytes
from explain_step.snapshot.export import bundle, check_outside, new_file
from explain_step.snapshot.export_croissant import croissant
from explain_step.snapshot.export_cyclonedx import cyclonedx
from explain_step.snapshot.export_rocrate import rocrate
from explain_step.tracking.checked import copied_model

if TYPE_CHECKING:
    from explain_step.snapshot import Snapshot

README = """# Snapshot {short}

{sentence}

## Content
- `snapshot/`: the explanation: tables, figures, page, provenance, and `manifest.json`, which names every byte
- `model/`: {model}
- `environment/`: what was installed: `requirements.txt` (in use), `constraints.txt` (all), `python-version.txt`{lock}
- `config.json`: the options of the explanation
- `replay.json`: digests of everything that a replay needs, for machines
- `SHA256SUMS`: digests of all files here

The rows are not in it. They are the recorded ones when these digests (`frame-v1`) are reached:
{data}

## Check the bytes
```
sha256sum -c SHA256SUMS
pip install {tool}
explain-step verify snapshot
```
A digest beside a file shows accidents. Compare the SHA-256 of `snapshot/manifest.json`, {manifest},
with the tag `explain_step.manifest_sha256` of the model version, or use `verify --allowed-keys` where it is signed.

## Compute it again
```
explain-step replay snapshot --data rows.parquet{background} --model {where}
explain-step replay snapshot --data rows.parquet{background} --model {where} --env recreate
explain-step replay snapshot --data rows.parquet{background} --model {where} --env recreate --wheels wheels
```
The first uses the libraries that are installed, the second rebuilds the recorded environment with `uv`, the third does so
from a folder of wheels without a network. Loading a pickled model runs its code; its digest is compared before.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    files: tuple[str, ...]
    snapshot_id: str
    model: str
    """How the model is in the bundle, in words."""


def export(
    source: str | Path, to: str | Path, *, model: bool = True, tracking_uri: str | None = None
) -> Exported:
    """Write what an auditor needs to verify and to replay a snapshot to a new folder or ``.zip`` file.

    Parameters
    ----------
    source : path or str
        A snapshot directory, ``runs:/<id>``, ``models:/name/3``, ``models:/name@alias``, ``models:/m-<id>``.
    to : path
        A folder, or a file that ends in ``.zip``; it must not be there yet.
    model : bool
        Put the files of the explained model in, where MLflow has them with the recorded digest.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Raises
    ------
    SnapshotError
        There is no snapshot, it does not verify, or the model's files are not the recorded ones.
    InvalidInput
        ``to`` is taken, or inside the snapshot.

    Notes
    -----
    The same snapshot and model give the same bytes.
    """
    with tempfile.TemporaryDirectory(prefix="explain_step_export_") as folder:
        path = tracking.fetch(source, tracking_uri=tracking_uri, destination=Path(folder) / "snapshot")
        check_outside(to, path)
        check_bytes(path)
        shot = snapshot.read_directory(path)
        with _model(shot, wanted=model, tracking_uri=tracking_uri) as (files, words):
            folders = {"snapshot": shot.path, **({} if files is None else {"model": files})}
            written = bundle(
                to,
                texts=_texts(shot, model=words, has_model=files is not None),
                folders=folders,
                leave_out={"model": frozenset({"explanations", "registered_model_meta"})},
            )
    return Exported(path=Path(to), files=written, snapshot_id=shot.id, model=words)


def describe(source: str | Path, to: str | Path, *, form: str, tracking_uri: str | None = None) -> Exported:
    """Write a snapshot in the terms of a standard, through the library that is made for it.

    Parameters
    ----------
    source : path or str
        As for `export`.
    to : path
        For ``cyclonedx`` a new file; for ``ro-crate`` and ``croissant`` a new folder or ``.zip`` file, with the snapshot
        in it.
    form : {"cyclonedx", "ro-crate", "croissant"}

    Raises
    ------
    SnapshotError
        There is no snapshot, or it does not verify.
    MissingDependency
        The library of the standard is not installed.
    InvalidInput
        ``to`` is taken, or inside the snapshot.
    """
    with tempfile.TemporaryDirectory(prefix="explain_step_export_") as folder:
        path = tracking.fetch(source, tracking_uri=tracking_uri, destination=Path(folder) / "snapshot")
        check_outside(to, path)
        check_bytes(path)
        shot = snapshot.read_directory(path)
        if form == "cyclonedx":
            text = cyclonedx(shot, provenance_record(shot.path, "environment"))
            written: tuple[str, ...] = (new_file(to, text),)
        else:
            name, text = (
                ("ro-crate-metadata.json", rocrate(shot))
                if form == "ro-crate"
                else ("croissant.json", croissant(shot))
            )
            written = bundle(to, texts={name: text}, folders={"snapshot": shot.path}, leave_out={})
    return Exported(
        path=Path(to), files=written, snapshot_id=shot.id, model="left out: the form describes it"
    )


@contextmanager
def _model(shot: Snapshot, *, wanted: bool, tracking_uri: str | None) -> Iterator[tuple[Path | None, str]]:
    """Give a checked copy of the model's files, or None and why."""
    uri = recorded_uri(shot)
    if not wanted or uri is None or shot.model.digest is None:
        why = (
            "left out on request" if not wanted else "none: the snapshot names no logged model with a digest"
        )
        yield None, f"{why}" if uri is None or wanted else f"{why}; it is {uri}"
        return
    with tempfile.TemporaryDirectory(prefix="explain_step_model_") as folder:
        copy = copied_model(uri, destination=folder, tracking_uri=tracking_uri)
        if copy.digest != shot.model.digest:
            digests = f"digest {copy.digest[:12]}…, recorded {shot.model.digest[:12]}…"
            msg = f"The files of {uri} are not the explained ones ({digests}); --no-model leaves them out."
            raise SnapshotError(msg)
        yield copy.directory, f"the files of {uri}, digest `{copy.digest}` (`directory-v1`)"


def _texts(shot: Snapshot, *, model: str, has_model: bool) -> dict[str, str]:
    manifest = shot.manifest
    texts = {
        "config.json": _json(manifest["config"]),
        "replay.json": _json(_facts(shot)),
        **_environment(shot),
    }
    data = manifest["data"]
    given = "themselves" not in str(data.get("background"))
    digests = [("rows", "digest"), ("labels", "labels_digest"), ("weights", "weights_digest")]
    digests += [("background", "background_digest")] if given else []
    texts["README.md"] = README.format(
        short=shot.id[:12],
        sentence=f"Status {shot.status}: {shot.reason}. Made by {manifest['tool']} at {manifest['created_at']}.",
        model=model,
        lock=", `pylock.toml`" if "environment/pylock.toml" in texts else "",
        data="\n".join(f"- {word} `{data[key]}`" for word, key in digests if data.get(key)),
        tool=str(manifest["tool"]).replace(" ", "=="),
        manifest=f"`{_manifest_digest(shot)}`",
        background=" --background background.parquet" if given else "",
        where="model" if has_model else "MODEL",
    )
    return texts


def _manifest_digest(shot: Snapshot) -> str:
    from explain_step.hashes import sha256_file

    return sha256_file(shot.path / "manifest.json")


def _facts(shot: Snapshot) -> dict[str, Any]:
    manifest = shot.manifest
    keys = ("snapshot_id", "created_at", "tool", "model", "config_digest", "methods")
    data = {key: value for key, value in manifest["data"].items() if key.endswith("digest") or key == "rows"}
    tolerances = {name: entry.get("tolerance") for name, entry in manifest["tables"].items()}
    return {
        **{key: manifest[key] for key in keys},
        "data": data,
        "tolerances": tolerances,
        "manifest_sha256": _manifest_digest(shot),
    }


def _environment(shot: Snapshot) -> dict[str, str]:
    records = (provenance_record(shot.path, name) for name in ("environment", "code"))
    try:
        plan = plan_of(*records)
    except ExplainStepError as error:
        return {"environment/unknown.txt": f"{error}\n"}
    texts = {
        "environment/requirements.txt": "".join(f"{line}\n" for line in plan.requirements),
        "environment/constraints.txt": "".join(f"{line}\n" for line in plan.constraints),
        "environment/python-version.txt": f"{plan.python}\n",
    }
    return texts if plan.lock is None else {**texts, "environment/pylock.toml": plan.lock}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
