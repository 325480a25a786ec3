"""Find what an explanation belongs to: the run, its logged model, and the versions of that model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from explain_step.errors import InvalidInput, NoAnswer
from explain_step.tracking.deadline import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

Version = tuple[str, str]
MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
RUN_ID = re.compile(r"[0-9a-f]{32}")
EVIDENCE_TAG = "explain_step.evidence"
FORMS = "models:/name/3, models:/name@alias, models:/m-<id>, runs:/<run id>/<path> or a path inside the run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What an explanation is tied to. Made by `resolve`; holds a client, never a global setting.

    Attributes
    ----------
    client : MlflowClient
        Bound to one tracking server.
    run_id : str, optional
        The run that shows the explanation; None where there is no live run (deleted, or a foreign model).
    experiment_id : str, optional
    model_id : str, optional
        The logged model that carries the evidence; None makes the run carry it.
    model_uri : str, optional
        ``models:/m-…`` for a logged model; otherwise the URI that was resolved.
    versions : tuple of (name, version)
        Registered versions of the logged model, copies included, the asked one first.
    model_location : str, optional
        Artifact root of the model's files.
    run_location : str, optional
        Artifact root of the run.
    note : str, optional
        What a reader should know about the choice ("the newest of 2 logged models").
    """

    client: MlflowClient
    run_id: str | None
    experiment_id: str | None
    model_id: str | None
    model_uri: str | None
    versions: tuple[Version, ...] = ()
    model_location: str | None = None
    run_location: str | None = None
    note: str | None = None

    @property
    def evidence_location(self) -> str | None:
        """Artifact root under which ``explanations/<snapshot id>/`` is kept."""
        return self.model_location if self.model_id else self.run_location

    @property
    def evidence_uri(self) -> str:
        """The same as a URI for people: ``models:/m-…`` or ``runs:/…``."""
        return f"models:/{self.model_id}" if self.model_id else f"runs:/{self.run_id}"


def resolve(
    *, run_id: str | None = None, model_uri: str | None = None, tracking_uri: str | None = None
) -> Target:
    """Find run, logged model and registered versions.

    Parameters
    ----------
    run_id : str, optional
        Default: the active run, read only; with ``model_uri`` and no active run, the run that logged the
        model.
    model_uri : str, optional
        ``models:/name/3``, ``models:/name@alias``, ``models:/m-<id>``, ``runs:/<id>/<path>`` or a path inside
        the run. Default: the newest logged model of the run that is ready.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Raises
    ------
    InvalidInput
        Where there is neither a run nor a model, or where the URI names nothing.
    """
    from mlflow.exceptions import MlflowException

    client = connect(tracking_uri)
    given_run = run_id if run_id is not None else _active_run_id(client)
    if given_run is None and model_uri is None:
        msg = (
            "Argument run_id is not given and no MLflow run is active. Call it inside "
            "`with mlflow.start_run():`, or pass run_id=... or model_uri='models:/name/version'."
        )
        raise InvalidInput(msg)
    try:
        if model_uri is None:
            return _from_run(client, str(given_run))
        return _from_uri(client, model_uri, run_id=given_run)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        asked = f"model_uri {model_uri!r}" if model_uri is not None else f"run_id {given_run!r}"
        msg = (
            f"Argument {asked} names nothing at {client.tracking_uri}: {error.message.rstrip('.')}. Known forms: "
            f"{FORMS}."
        )
        raise InvalidInput(msg) from error


def resolve_source(source: str, *, tracking_uri: str | None = None) -> Target:
    """Find what a source of evidence names, whatever run is active."""
    from mlflow.exceptions import MlflowException

    client = connect(tracking_uri)
    try:
        if names_run(source):
            run_id = source.removeprefix("runs:/").strip("/").partition("/")[0]
            return _from_run(client, run_id, explained=True)
        return _from_uri(client, source, run_id=None)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        msg = (
            f"{source!r} names nothing at {client.tracking_uri}: {error.message.rstrip('.')}. Known forms: "
            f"{FORMS}."
        )
        raise InvalidInput(msg) from error


def names_run(source: str) -> bool:
    """Tell whether a source of evidence names a run and no model: the model that the run shows is meant.

    Examples
    --------
    >>> names_run("runs:/0a"), names_run("0a"), names_run("runs:/0a/model"), names_run("models:/mortgage/3")
    (True, True, False, False)
    """
    path = source.removeprefix("runs:/").strip("/").partition("/")[2]
    return not source.startswith("models:/") and (not path or path.split("/")[0] == "explanations")


def _active_run_id(client: MlflowClient) -> str | None:
    """Return the active run of this process, where it lives on the client's own server."""
    import mlflow

    run = mlflow.active_run()
    if run is None or mlflow.get_tracking_uri() != client.tracking_uri:
        return None
    return str(run.info.run_id)


def _from_run(client: MlflowClient, run_id: str, *, explained: bool = False) -> Target:
    """Take the newest model of a run; with ``explained`` the one whose explanation the run shows.

    That is one of its own, or of another run where it has none: a job that explains what was trained before.
    """
    run = _run_of(client, run_id)
    ready = [m for m in logged_models(client, run) if str(m.status) == "READY"]
    shown = shown_model(run.data.tags) if explained else None
    if not ready:
        model = None if shown is None else _logged_model_or_none(client, shown)
        return _target(client, run=run, model=model, uri=None)
    if explained:
        model = next((m for m in ready if m.model_id == shown), ready[0])
        return _target(client, run=run, model=model, uri=None)
    note = None
    if len(ready) > 1:
        names = ", ".join(repr(m.name) for m in ready)
        note = f"The run logged {len(ready)} models ({names}); the newest, {ready[0].name!r}, is explained."
    return _target(client, run=run, model=ready[0], uri=None, note=note)


def shown_model(tags: Mapping[str, str]) -> str | None:
    """Return the logged model whose explanation a run shows, by its tags."""
    found = re.match(rf"models:/({MODEL_ID.pattern})/", tags.get(EVIDENCE_TAG, ""))
    return None if found is None else found[1]


def logged_models(client: MlflowClient, run: Any) -> list[Any]:
    """Return the logged models of a run, newest first."""
    return list(
        client.search_logged_models(
            experiment_ids=[run.info.experiment_id],
            filter_string=f"source_run_id = '{run.info.run_id}'",
            order_by=[{"field_name": "creation_timestamp", "ascending": False}],
        )
    )


def _from_uri(client: MlflowClient, uri: str, *, run_id: str | None) -> Target:
    if uri.startswith("models:/"):
        return _from_models_uri(client, uri, run_id=run_id)
    if uri.startswith("runs:/"):
        owner, _, path = uri.removeprefix("runs:/").partition("/")
    elif run_id is not None and ":" not in uri:
        owner, path = run_id, uri
    else:
        msg = f"Argument model_uri must be {FORMS}; got {uri!r}."
        raise InvalidInput(msg)
    source = _run_of(client, owner)
    run = source if run_id in (None, owner) else _run_of(client, str(run_id))
    named = [m for m in logged_models(client, source) if m.name == path.strip("/")]
    if named:
        return _target(client, run=run, model=named[0], uri=None)
    if not path or not client.list_artifacts(owner, path):
        have = ", ".join(repr(m.name) for m in logged_models(client, source)) or "none"
        msg = f"Argument model_uri {uri!r} names no model of run {owner}; its logged models: {have}."
        raise InvalidInput(msg)
    location = f"{source.info.artifact_uri.rstrip('/')}/{path.strip('/')}"
    return _target(client, run=run, model=None, uri=f"runs:/{owner}/{path}", location=location)


def _from_models_uri(client: MlflowClient, uri: str, *, run_id: str | None) -> Target:
    rest = uri.removeprefix("models:/").strip("/")
    if MODEL_ID.fullmatch(rest):
        model = client.get_logged_model(rest)
        _check_answer(rest, str(model.model_id))
        run = _run_for(client, run_id, otherwise=model.source_run_id)
        return _target(client, run=run, model=model, uri=None)
    version = _named_version(client, rest, uri=uri)
    asked = (str(version.name), str(version.version))
    model_id = model_id_of(client, version)
    if model_id is not None:
        model = _logged_model_or_none(client, model_id)
        if model is not None:
            run = _run_for(client, run_id, otherwise=version.run_id or model.source_run_id)
            return _target(client, run=run, model=model, uri=None, asked=asked)
    location = client.get_model_version_download_uri(*asked)
    return _target(
        client,
        run=_run_for(client, run_id, otherwise=version.run_id),
        model=None,
        uri=f"models:/{asked[0]}/{asked[1]}",
        asked=asked,
        location=location,
    )


def _named_version(client: MlflowClient, rest: str, *, uri: str) -> Any:
    name, _, alias = rest.partition("@")
    if alias and "/" not in alias:
        return client.get_model_version_by_alias(name, alias)
    name, _, version = rest.rpartition("/")
    if not name or "/" in name or not version.isdigit():
        msg = f"Argument model_uri must be {FORMS}; got {uri!r}."
        raise InvalidInput(msg)
    return client.get_model_version(name, version)


def model_id_of(client: MlflowClient, version: Any) -> str | None:
    """Return the id of the logged model behind a registered version, or None.

    The registry does not keep the id; ``source`` does, through every copy (``models:/name/version`` in turn).
    """
    seen: set[str] = set()
    while True:
        source = str(version.source or "")
        direct = re.search(r"models:/(m-[0-9a-f]{32})", source)
        if direct:
            return direct[1]
        parent = re.fullmatch(r"models:/([^/@]+)/(\d+)", source)
        if parent is None or source in seen:
            break
        seen.add(source)
        version = client.get_model_version(parent[1], parent[2])
    stored = client.get_model_version_download_uri(version.name, version.version)
    inside = re.search(r"/models/(m-[0-9a-f]{32})/artifacts", str(stored))
    return inside[1] if inside else None


def _target(
    client: MlflowClient,
    *,
    run: Any,
    model: Any,
    uri: str | None,
    asked: Version | None = None,
    location: str | None = None,
    note: str | None = None,
) -> Target:
    if run is not None and run.info.lifecycle_stage == "deleted":
        note, run = f"Run {run.info.run_id} is deleted; only the model carries the explanation.", None
    if run is None and model is None:
        msg = f"{uri!r} has neither a logged model nor a live run; log the model again."
        raise InvalidInput(msg)
    root = f"models:/{model.model_id}" if model is not None else uri
    found = dict.fromkeys((asked,) if asked else ())
    if root is not None:
        found.update(dict.fromkeys(_versions_of(client, root)))
    holder = run.info if run is not None else model
    return Target(
        client=client,
        run_id=None if run is None else str(run.info.run_id),
        experiment_id=None if holder is None else str(holder.experiment_id),
        model_id=None if model is None else str(model.model_id),
        model_uri=root,
        versions=tuple(found),
        model_location=location if model is None else str(model.artifact_location),
        run_location=None if run is None else str(run.info.artifact_uri),
        note=note,
    )


def _versions_of(client: MlflowClient, root: str) -> Iterator[Version]:
    """Yield the versions whose source is ``root``, then the copies of these."""
    waiting, seen = [root], {root}
    while waiting:
        source = waiting.pop(0)
        quote = '"' if "'" in source else "'"
        for found in client.search_model_versions(f"source_path = {quote}{source}{quote}"):
            version = (str(found.name), str(found.version))
            yield version
            copy = f"models:/{version[0]}/{version[1]}"
            if copy not in seen:
                seen.add(copy)
                waiting.append(copy)


def _run_for(client: MlflowClient, run_id: str | None, *, otherwise: str | None) -> Any:
    """Return the run that was named, which has to be there; else the model's own, where it still is."""
    if run_id is None:
        return _run_or_none(client, otherwise)
    run = _run_or_none(client, run_id)
    if run is None:
        msg = f"Argument run_id {run_id!r} names no run at {client.tracking_uri}."
        raise InvalidInput(msg)
    return run


def _run_or_none(client: MlflowClient, run_id: str | None) -> Any:
    return None if not run_id else _found(partial(_run_of, client), run_id)


def _run_of(client: MlflowClient, run_id: str) -> Any:
    run = client.get_run(run_id)
    _check_answer(run_id, str(run.info.run_id))
    return run


def _check_answer(asked: str, answered: str) -> None:
    """Refuse ``{}`` with status 200, as a broken proxy gives it: MLflow makes a run without an id of it."""
    if asked != answered:
        msg = f"the server was asked for {asked} and answered with {answered[:80]!r}"
        raise NoAnswer(msg)


def _logged_model_or_none(client: MlflowClient, model_id: str) -> Any:
    return _found(client.get_logged_model, model_id)


def _found(get: Any, key: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return get(key)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
