"""What is known about a model version when it is judged: plain values, gathered elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import pandas as pd

from explain_step.errors import InvalidInput
from explain_step.types import Finding, SignatureFound

Action = Literal["alias", "stage", "registered_model", "check"]

__all__ = ["Action", "Evidence", "Reference", "Request", "Review", "SignatureFound"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked for: an alias, a stage, or a place in a protected registered model; or only a check.

    ``by`` is who asks; ``authenticated`` tells whether a server has checked that.
    """

    action: Action = "check"
    target: str | None = None
    by: str = "unknown"
    authenticated: bool = False

    def __str__(self) -> str:
        return self.action if self.target is None else f"{self.action} {self.target!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """One person's word on one snapshot."""

    reviewer: str
    decision: Literal["approve", "reject"]
    snapshot_id: str
    manifest_sha256: str
    at: datetime
    note: str = ""
    authenticated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The version that an alias points to now: what drift is measured against.

    ``problem`` says why its snapshot cannot be used (none there, does not verify).
    """

    name: str
    version: str
    snapshot_id: str | None = None
    quantity: Mapping[str, Any] | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything that `decide` looks at.

    Attributes
    ----------
    name, version : str
        The registered version that shall be promoted.
    model_id, run_id : str, optional
        Logged model and run that the registry names for this version (not what the manifest says).
    author : str, optional
        Who made the run, as its client said.
    authors : tuple of str
        Who made run and logged model, as a server has authenticated them: none of them approves.
    verification : tuple of Finding
        What `explain_step.snapshot.verify_directory` found; empty where there is no snapshot.
    absent : str, optional
        Why there is no snapshot.
    manifest : mapping
        Of the verified snapshot; empty without one.
    manifest_sha256 : str, optional
        Of the file as it was read.
    registry_sha256 : str, optional
        The same as the registry's tag has it: another trust domain.
    tables : mapping of str to DataFrame
        Parsed from the bytes that were verified.
    model_digest : str, optional
        `explain_step.digests.directory_digest` of the model's files as they are stored now.
    model_problem : str, optional
        Why that digest does not cover what is loaded: the model points to files elsewhere, or is not finished.
    signatures, reviews : tuple
    champion : Reference, optional
        None where the alias of ``policy.drift`` points nowhere.
    unreadable : tuple of str
        Parts of the evidence that could not be asked for. Any of them leaves the decision undecided.
    now : datetime
    """

    name: str
    version: str
    now: datetime
    model_id: str | None = None
    run_id: str | None = None
    author: str | None = None
    authors: tuple[str, ...] = ()
    verification: tuple[Finding, ...] = ()
    absent: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    manifest_sha256: str | None = None
    registry_sha256: str | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    model_digest: str | None = None
    model_problem: str | None = None
    signatures: tuple[SignatureFound, ...] = ()
    reviews: tuple[Review, ...] = ()
    champion: Reference | None = None
    unreadable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.now.tzinfo is None:
            msg = f"Argument now must have a time zone, got {self.now.isoformat()}; use datetime.now(UTC)."
            raise InvalidInput(msg)

    @property
    def uri(self) -> str:
        """``models:/name/version``."""
        return f"models:/{self.name}/{self.version}"

    @property
    def snapshot_id(self) -> str | None:
        """Identity of the snapshot that was read."""
        found = self.manifest.get("snapshot_id")
        return None if found is None else str(found)

    @property
    def usable(self) -> bool:
        """Whether there is a snapshot, it was verified, and every byte of it verifies."""
        checked = bool(self.verification) and all(f.verdict == "pass" for f in self.verification)
        return bool(self.manifest) and checked and self.absent is None
