"""What the step hands back after logging."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from explain_step.types import Status

if TYPE_CHECKING:
    from explain_step.snapshot import Snapshot
    from explain_step.tracking.target import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedSnapshot:
    """A snapshot and where it was logged, or, with status ``failed``, why there is none.

    Attributes
    ----------
    status : str
        ``complete``, ``degraded``, ``incomplete`` or ``failed``.
    reason : str
    id : str, optional
        The snapshot id; None when the step failed.
    snapshot : Snapshot, optional
        As it was written locally; None when the step failed or the snapshot is in the spool. Its directory is a local
        copy, which goes when nothing refers to the snapshot any more, at the latest with the process; the stored one is
        at ``artifact_uri``.
    run_id, model_id : str, optional
    versions : tuple of (name, version)
    model_uri, run_uri : str, optional
        ``models:/m-…`` and ``runs:/…``.
    path : str, optional
        Folder of the evidence inside the artifacts of the logged model (or of the run without one).
    artifact_uri : str, optional
        The same folder in the artifact store, as ``mlflow.artifacts`` takes it.
    manifest_sha256 : str, optional
        Digest of the stored manifest.
    url : str, optional
        Address of the page in the MLflow UI, behind a server.
    spool : Path, optional
        Where the snapshot is kept on this machine, because MLflow did not take it (status ``incomplete``);
        ``explain-step resume`` finishes it.
    """

    status: Status
    reason: str
    id: str | None = None
    snapshot: Snapshot | None = None
    run_id: str | None = None
    model_id: str | None = None
    versions: tuple[tuple[str, str], ...] = ()
    model_uri: str | None = None
    run_uri: str | None = None
    path: str | None = None
    artifact_uri: str | None = None
    manifest_sha256: str | None = None
    url: str | None = None
    spool: Path | None = None


def page_url(target: Target) -> str | None:
    """Return the address of the page in the MLflow UI; None without a server."""
    server = target.client.tracking_uri.rstrip("/")
    return f"{server}/{page_route(target)}" if server.startswith(("http://", "https://")) else None


def page_route(target: Target) -> str:
    """Return the place of the page within the MLflow UI, whatever the address of the server.

    A route to a file works on the run's page; the logged model's page takes no path below ``artifacts``.
    """
    if target.run_id is not None:
        return f"#/experiments/{target.experiment_id}/runs/{target.run_id}/artifacts/explanations/report.html"
    return f"#/experiments/{target.experiment_id}/models/{target.model_id}/artifacts"
