"""Gather what the gate looks at, from the registry and the artifact store, without trusting a tag."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from explain_step import digests
from explain_step.errors import ExplainStepError, InvalidInput
from explain_step.gate import DEFAULT, Evidence, Policy, Reference, Review
from explain_step.secret_masking import told
from explain_step.snapshot import StoredTables, examine
from explain_step.tracking.fetch import newest
from explain_step.tracking.loading import files_at
from explain_step.tracking.marks import PREFIX
from explain_step.tracking.model_files import model_problem
from explain_step.tracking.place import Place, open_place
from explain_step.tracking.target import model_id_of
from explain_step.types import Finding

REVIEW_TAG = f"{PREFIX}review."
AUTHOR_TAG = f"{PREFIX}author"
"""Of runs and logged models: whom a gated server had authenticated when they were made. Clients cannot write it there."""
MAX_EVIDENCE_FILES = 2_000
MAX_EVIDENCE_BYTES = 500 * 2**20
"""A snapshot has tens of files and a few megabytes; what is larger is not read (a full disk is an attack)."""
Opener = Callable[[str], Place]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Located:
    """Where a registered version has its files, and its evidence: beside them, or without a logged model in the run."""

    version: Any
    model_id: str | None
    run_id: str | None
    author: str | None
    authors: tuple[str, ...]
    location: str
    evidence: str
    hint: str | None
    registry_sha256: str | None
    unfinished: str | None


def gather(
    name: str,
    version: str,
    *,
    client: Any,
    policy: Policy = DEFAULT,
    open_at: Opener | None = None,
    now: datetime | None = None,
) -> Evidence:
    """Return the evidence for a registered version.

    Parameters
    ----------
    name, version : str
    client : MlflowClient
        Asked for the version, its logged model, its run and the alias of ``policy.drift``.
    policy : Policy
        Says which further version is needed.
    open_at : callable, optional
        Artifact location to `Place`. Default: as MLflow would, through the client's tracking server.
    now : datetime, optional
        Default: the current time.

    Raises
    ------
    InvalidInput
        There is no such version. Whatever else cannot be read is in ``Evidence.unreadable``: the gate then
        does not decide.
    """
    from mlflow.exceptions import MlflowException

    opener: Opener = open_at or (lambda location: open_place(location, tracking_uri=client.tracking_uri))
    moment = now or datetime.now(UTC)
    try:
        registered = client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        msg = f"models:/{name}/{version} names no registered version: {error.message}"
        raise InvalidInput(msg) from error
    facts: dict[str, Any] = {"reviews": _reviews(registered.tags or {})}
    problems: list[str] = []
    with _kept(problems, "the registry"):
        located = _locate(client, registered)
        facts |= {"model_id": located.model_id, "run_id": located.run_id, "author": located.author}
        facts["authors"] = located.authors
        facts["registry_sha256"] = located.registry_sha256
        with _kept(problems, "the artifact store"):
            facts |= snapshot_facts(opener(located.evidence), hint=located.hint)
            facts |= _model_facts(opener(located.location), unfinished=located.unfinished)
    if policy.drift is not None:
        with _kept(problems, f"the version behind {policy.drift.alias!r}"):
            facts["champion"] = _reference(client, name, policy.drift.alias, opener)
    return Evidence(name=name, version=str(version), now=moment, unreadable=tuple(problems), **facts)


def gather_logged(
    model_id: str, *, client: Any, open_at: Opener | None = None, now: datetime | None = None
) -> Evidence:
    """Return the evidence for a logged model that is named by its id, whatever versions it has.

    What a registry adds (reviews, its own digest of the manifest, a champion) is not there; the name of the
    evidence is the id and its version is empty.
    """
    opener: Opener = open_at or (lambda location: open_place(location, tracking_uri=client.tracking_uri))
    facts: dict[str, Any] = {}
    problems: list[str] = []
    with _kept(problems, "the logged model"):
        model = client.get_logged_model(model_id)
        facts["run_id"] = model.source_run_id
        with _kept(problems, "the artifact store"):
            place = opener(str(model.artifact_location))
            facts |= snapshot_facts(place, hint=(model.tags or {}).get(f"{PREFIX}snapshot_id"))
            facts |= _model_facts(place, unfinished=_unfinished(model))
    return Evidence(
        name=model_id,
        version="",
        now=now or datetime.now(UTC),
        model_id=model_id,
        unreadable=tuple(problems),
        **facts,
    )


def _model_facts(place: Place, *, unfinished: str | None) -> dict[str, Any]:
    """Return the digest of the model's files, and why it does not cover what is loaded."""
    with files_at(place) as directory:
        problem = unfinished or model_problem(directory)
        return {"model_digest": digests.directory_digest(directory), "model_problem": problem}


def _unfinished(model: Any) -> str | None:
    """Say that a logged model is not READY: its files may still change."""
    status = str(model.status)
    return None if status == "READY" else f"logged model {model.model_id} is {status}, not READY: finalize it"


@contextmanager
def _kept(problems: list[str], what: str) -> Iterator[None]:
    """Turn an error into a named gap in the evidence: the gate fails closed and says why."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - stores raise types of their own; every one leaves the gate undecided
        problems.append(f"{what}: {told(error, most=300)}")


def _locate(client: Any, version: Any) -> _Located:
    model_id = model_id_of(client, version)
    tags = version.tags or {}
    stored = str(client.get_model_version_download_uri(version.name, version.version))
    author, run_id, evidence, unfinished = None, version.run_id or None, stored, None
    authors: list[str | None] = []
    if model_id is not None:
        model = client.get_logged_model(model_id)
        _same_place(stored, str(model.artifact_location), f"logged model {model_id}")
        unfinished = _unfinished(model)
        authors.append((model.tags or {}).get(AUTHOR_TAG))
        run_id = model.source_run_id or run_id  # whoever registers a version may name any run for it
    if run_id is not None:
        run = client.get_run(run_id)
        author = run.data.tags.get("mlflow.user") or run.info.user_id
        authors.append(run.data.tags.get(AUTHOR_TAG))
        if model_id is None:
            _inside(stored, str(run.info.artifact_uri), f"run {run_id}")
            evidence = str(run.info.artifact_uri)
    return _Located(
        version=version,
        model_id=model_id,
        run_id=run_id,
        author=author,
        authors=tuple(dict.fromkeys(name for name in authors if name)),
        location=stored,
        evidence=evidence,
        hint=tags.get(f"{PREFIX}snapshot_id"),
        registry_sha256=tags.get(f"{PREFIX}manifest_sha256"),
        unfinished=unfinished,
    )


def _same_place(stored: str, location: str, owner: str) -> None:
    """Refuse a version whose files, which its users load, are not those of the model that it names."""
    if stored.rstrip("/") != location.rstrip("/"):
        msg = f"the version's files are at {stored[:200]}, not at the place of {owner}"
        raise ExplainStepError(msg)


def _inside(stored: str, root: str, owner: str) -> None:
    """Refuse a version without a logged model whose files are not its run's."""
    inside = stored.removeprefix(root.rstrip("/"))
    if inside == stored or inside[:1] not in ("", "/") or ".." in inside.split("/"):
        msg = f"the version's files are at {stored[:200]}, not among the artifacts of {owner}"
        raise ExplainStepError(msg)


def located_place(client: Any, name: str, version: str, open_at: Opener) -> tuple[Place, str | None]:
    """Return where the evidence of a registered version is kept, and the snapshot id that its tag names."""
    located = _locate(client, client.get_model_version(name, version))
    return open_at(located.evidence), located.hint


def snapshot_facts(place: Place, *, hint: str | None) -> dict[str, Any]:
    """Return the part of the evidence that a snapshot gives: copied, verified, then read from the copy."""
    folder = newest(place, hint=hint)
    if folder is None:
        return {"absent": "there is no finished explanation snapshot beside the model"}
    with _at_hand(place, folder) as directory:
        examined = examine(directory, thorough=False)
        found: dict[str, Any] = {"verification": examined.findings}
        if examined.manifest is not None and all(f.verdict == "pass" for f in examined.findings):
            found |= {"manifest": examined.manifest, "signatures": examined.signatures}
            found["tables"] = _Parsed(StoredTables(directory, examined.manifest))
            found["manifest_sha256"] = examined.manifest_sha256
        return found


class _Parsed(Mapping[str, Any]):
    """Tables that are parsed once for one decision: several rules read the same, and none changes it."""

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self._tables, self._parsed = tables, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self._parsed:
            self._parsed[name] = self._tables[name]
        return self._parsed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


def snapshot_findings(place: Place, folder: str) -> tuple[Finding, ...]:
    """Return what verification finds in one stored snapshot."""
    with _at_hand(place, folder) as directory:
        return examine(directory, thorough=False).findings


@contextmanager
def _at_hand(place: Place, folder: str) -> Iterator[Path]:
    """Yield a directory with a snapshot: of a local store the stored one, else a private copy.

    What is read of a stored one is what was verified, whoever writes meanwhile: the manifest is read once, and
    every table is taken only with the digest that the manifest names.
    """
    limits = {"most_files": MAX_EVIDENCE_FILES, "most_bytes": MAX_EVIDENCE_BYTES}
    root = place.local_root()
    if root is not None:
        place.check_sizes(folder, **limits)
        yield root / folder
        return
    with tempfile.TemporaryDirectory(prefix="explain_step_evidence_") as copy:
        yield place.copy(folder, destination=Path(copy), **limits)


def _reference(client: Any, name: str, alias: str, opener: Opener) -> Reference | None:
    """Return the version that an alias points to, with its tables; None where it points nowhere."""
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    located = _locate(client, version)
    found = snapshot_facts(opener(located.evidence), hint=located.hint)
    number = str(version.version)
    if "manifest" not in found:
        why = found.get("absent") or "its snapshot does not verify"
        return Reference(name=name, version=number, problem=why)
    manifest = found["manifest"]
    return Reference(
        name=name,
        version=number,
        snapshot_id=str(manifest["snapshot_id"]),
        quantity=manifest["quantity"],
        tables=found["tables"],
    )


def _reviews(tags: Mapping[str, str]) -> tuple[Review, ...]:
    """Return the reviews that the tags of a version hold; what is not a review is left out."""
    return tuple(
        review
        for key, value in sorted(tags.items())
        if key.startswith(REVIEW_TAG) and (review := parse_review(value)) is not None
    )


def parse_review(text: str) -> Review | None:
    """Return the review in a tag's value; None where it is not one.

    Examples
    --------
    >>> parse_review("approved") is None
    True
    """
    try:
        plain = json.loads(text)
        return Review(
            reviewer=str(plain["reviewer"]),
            decision=plain["decision"],
            snapshot_id=str(plain["snapshot_id"]),
            manifest_sha256=str(plain["manifest_sha256"]),
            at=datetime.fromisoformat(plain["at"]),
            note=str(plain.get("note", "")),
            authenticated=plain.get("authenticated") is True,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
