"""Where the server itself finds the files behind an artifact location: in its own store, never through HTTP."""

from __future__ import annotations

import os
import posixpath
from typing import Any
from urllib.parse import unquote, urlparse

from explain_step.errors import ExplainStepError
from explain_step.server.seal import in_trace, readings, spots
from explain_step.server.settings import UNSEALED, Deployment, accepts_unsealed, stripped
from explain_step.tracking.place import Place
from explain_step.tracking.target import MODEL_ID

AZURE = ("wasb", "wasbs", "abfs", "abfss")


def open_at(location: str, *, deployment: Deployment) -> Place:
    """Open an artifact location as the server sees it.

    Raises
    ------
    ExplainStepError
        The location is on another server, or it is written to without going through the sealed store: the
        evidence there could be changed after it was judged.
    """
    path = proxied_path(location)
    if path is not None and deployment.serves_artifacts and deployment.destination:
        inner = posixpath.join(stripped(deployment.destination), path)
        return Place(location=location, repository=unguarded(inner))
    if path is None and (not deployment.seals_artifacts or accepts_unsealed()):
        return Place(location=location, repository=unguarded(location))
    msg = (
        f"the files are at {location[:200]}, which does not go through the sealed artifact store of this "
        f"server; log the model to an experiment with the server's own artifact root ({UNSEALED}=1 on the "
        "server accepts other places)"
    )
    raise ExplainStepError(msg)


def unguarded(uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """Return MLflow's own repository of a location, also where the server guards it: to read, and to be guarded."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    found = get_artifact_repository(uri, tracking_uri, registry_uri)
    return getattr(found, "inner", found)


def proxied_path(location: str) -> str | None:
    """Return the path inside the server's artifact store; None for every other place.

    Examples
    --------
    >>> proxied_path("mlflow-artifacts:/1/models/m-1/artifacts"), proxied_path("mlflow-artifacts://elsewhere/1")
    ('1/models/m-1/artifacts', None)
    >>> proxied_path("mlflow-artifacts:/1/%2e%2e/2") is None
    True
    """
    parsed = urlparse(location)
    if parsed.scheme != "mlflow-artifacts" or parsed.netloc or parsed.query or parsed.fragment:
        return None
    path = parsed.path.lstrip("/")
    if path != unquote(path) or "\\" in path or posixpath.normpath(path) != path:
        return None
    return None if path.startswith("..") else path


def nested(location: str, *, deployment: Deployment) -> str | None:
    """Say why an experiment may not have its artifacts at a location; None where it may.

    A folder of a run may be deleted with all that is in it, also what another run keeps there; and the store's own
    directory, named directly, would be written to past the seal.

    Examples
    --------
    >>> own = Deployment(registry_uri=None, backend_uri=None, destination=None, serves_artifacts=True, artifacts_only=False)
    >>> nested("mlflow-artifacts:/7", deployment=own), nested("s3://bucket/x", deployment=own)
    (None, None)
    >>> nested(f"mlflow-artifacts:/7/{'0' * 32}/artifacts/deep", deployment=own)
    'it lies inside the artifacts of a run, a logged model or a trace'
    """
    path = urlparse(location).path or location
    if any(in_trace(reading) or any(spots(reading)) or _owned(reading) for reading in readings(path)):
        return "it lies inside the artifacts of a run, a logged model or a trace"
    if in_sealed_store(location, deployment=deployment):
        return "it is inside this server's artifact store; leave it out, or give mlflow-artifacts:/<folder>"
    return None


def in_sealed_store(location: str, *, deployment: Deployment) -> bool:
    """Tell whether a location is in the sealed store, named directly and not through the server."""
    return deployment.seals_artifacts and _inside(stripped(location), stripped(str(deployment.destination)))


def _owned(path: str) -> bool:
    """Tell whether a path leads through the folder of a logged model, whatever is below it."""
    return any(MODEL_ID.fullmatch(name) for name in path.split("/"))


def _inside(location: str, store: str) -> bool:
    ours, theirs = _rooted(store), _rooted(location)
    same = ours[:2] == theirs[:2]
    return same and any(f"{path}/".startswith(f"{ours[2]}/") for path in theirs[2:])


def _rooted(uri: str) -> tuple[str, ...]:
    """Return scheme, host and path of a location; a local one as the disk has it, followed by how it is written."""
    parsed = urlparse(uri)
    if parsed.scheme.lower() in ("", "file"):
        written = unquote(parsed.path) if parsed.scheme else uri
        return ("file", "", os.path.realpath(written), posixpath.normpath(written).replace("//", "/"))
    scheme, host = parsed.scheme.lower(), parsed.netloc.lower()
    path = posixpath.normpath("/" + unquote(parsed.path).lstrip("/")).rstrip("/")
    if scheme in AZURE:  # two interfaces to the same files
        return ("azure", host.replace(".blob.", ".dfs."), path)
    return ("hdfs" if scheme == "viewfs" else scheme, host, path)
