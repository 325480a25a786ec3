"""Load a stored model from a private copy whose bytes were digested and held against the evidence first."""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from explain_step.errors import SnapshotError
from explain_step.gate import Evidence, GateDecision, Policy, Rule, decide
from explain_step.tracking.evidence import MAX_EVIDENCE_BYTES, MAX_EVIDENCE_FILES, gather, gather_logged
from explain_step.tracking.fetch import newest
from explain_step.tracking.loading import Description, describe, download, load_native, unsafe
from explain_step.tracking.marks import PREFIX
from explain_step.tracking.model_files import model_problem
from explain_step.tracking.place import Place, open_place
from explain_step.tracking.target import Target, resolve
from explain_step.tracking.temporary import goes_with

OnUnproven = Literal["raise", "warn"]
DIGEST_RULES = ("GATE003", "GATE004", "GATE005")
LOGGED = re.compile(r"models:/m-[0-9a-f]{32}/?|runs:/.*")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copy:
    """A private copy of a model and of the snapshot beside it."""

    directory: Path
    location: str
    tracking_uri: str

    def place(self, location: str) -> Place:
        """Open the copy where the original is meant, and any other location as it is."""
        here = self.directory.as_uri() if location == self.location else location
        return open_place(here, tracking_uri=self.tracking_uri)


def load_proven(
    model_uri: str,
    *,
    policy: Policy,
    rules: Sequence[Rule],
    on_unproven: OnUnproven,
    flavor: Literal["native", "pyfunc"],
    allow_pickle: bool,
    tracking_uri: str | None,
) -> Any:
    """Copy, digest, decide, load: in this order, and all on the same copy.

    Raises
    ------
    SnapshotError
        The decision is not ``allow``; or the format runs code when it is loaded and its bytes are not proven.
    InvalidInput
        The URI names nothing, or its folder holds links or special files.
    """
    target = resolve(model_uri=model_uri, tracking_uri=tracking_uri)
    root = Path(tempfile.mkdtemp(prefix="explain_step_model_"))
    kept = False
    try:
        copy = _copied(target, root)
        decision, evidence = _judged(model_uri, target, copy, policy=policy, rules=rules)
        if not decision.allowed:
            _refused(model_uri, decision, on_unproven=on_unproven)
        described = describe(root)
        native = described.native if flavor == "native" else None
        if not (allow_pickle or _bytes_proven(decision, evidence)):
            _check_format(model_uri, described, root)
        if native is not None:
            return load_native(root, native)
        model = load_native(root, "pyfunc")
        kept = True  # a pyfunc may read its files later; they go with the object
        goes_with(model, root)
        return model
    finally:
        if not kept:
            shutil.rmtree(root, ignore_errors=True)


def _copied(target: Target, root: Path) -> _Copy:
    """Copy the model's files, and the one snapshot that would be looked at."""
    location = str(target.model_location)
    uri = target.client.tracking_uri
    place = open_place(target.model_location, tracking_uri=uri)
    download(place, root)
    folder = newest(place, hint=_hint(target))
    if folder is not None:
        place.copy(folder, destination=root, most_files=MAX_EVIDENCE_FILES, most_bytes=MAX_EVIDENCE_BYTES)
    return _Copy(directory=root, location=location, tracking_uri=uri)


def _hint(target: Target) -> str | None:
    """Return the snapshot id of a tag: where to look first, not what to believe."""
    for name, version in target.versions[:1]:
        hint = (target.client.get_model_version(name, version).tags or {}).get(f"{PREFIX}snapshot_id")
        return None if hint is None else str(hint)
    if target.model_id is None:
        return None
    hint = (target.client.get_logged_model(target.model_id).tags or {}).get(f"{PREFIX}snapshot_id")
    return None if hint is None else str(hint)


def _judged(
    model_uri: str, target: Target, copy: _Copy, *, policy: Policy, rules: Sequence[Rule]
) -> tuple[GateDecision, Evidence]:
    """Decide on what the copy holds."""
    used: list[str] = []

    def open_at(location: str) -> Place:
        used.append(location)
        return copy.place(location)

    if LOGGED.fullmatch(model_uri):
        if target.model_id is None:
            msg = f"{model_uri!r} has no logged model, so nothing ties an explanation to its files; log it again."
            raise SnapshotError(msg)
        evidence = gather_logged(target.model_id, client=target.client, open_at=open_at)
    else:
        name, version = target.versions[0]
        evidence = gather(name, version, client=target.client, policy=policy, open_at=open_at)
    if evidence.manifest and copy.location not in used:
        msg = f"{model_uri!r} has its files in two places, {copy.location} and {used[0]}; it was not loaded."
        raise SnapshotError(msg)
    return decide(evidence, policy, rules=rules), evidence


def _refused(model_uri: str, decision: GateDecision, *, on_unproven: OnUnproven) -> None:
    if on_unproven == "raise":
        msg = (
            f"{model_uri!r} is not proven and was not loaded: {decision.summary}. Explain it with: "
            f"explain-step run {model_uri} <held-out rows> --target <label column>"
        )
        raise SnapshotError(msg)
    warnings.warn(
        f"explain_step: {model_uri!r} is loaded without proof: {decision.summary}", UserWarning, stacklevel=4
    )


def _bytes_proven(decision: GateDecision, evidence: Evidence) -> bool:
    """Tell whether the digest of the copied files is the one in a snapshot that verifies and belongs here."""
    passed = {f.code: f.verdict == "pass" for f in decision.findings if f.code in DIGEST_RULES}
    return evidence.usable and set(passed) == set(DIGEST_RULES) and all(passed.values())


def _check_format(model_uri: str, described: Description, root: Path) -> None:
    reason = unsafe(described) or model_problem(root)
    if reason is not None:
        msg = (
            f"{model_uri!r} was not loaded: its bytes are not proven, and {reason}. Explain it, or pass "
            "allow_pickle=True for files that you trust."
        )
        raise SnapshotError(msg)
