"""From a written snapshot to MLflow, by way of the spool: nothing that was made is lost to a server or a store."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from explain_step.errors import ExplainStepError, InvalidInput, NoAnswer
from explain_step.secret_masking import mask_text
from explain_step.tracking import marks, spool
from explain_step.tracking.binding import model_digest, model_ref
from explain_step.tracking.deadline import refusal
from explain_step.tracking.fetch import created_at
from explain_step.tracking.place import FOLDER, MANIFEST, evidence_place
from explain_step.tracking.target import resolve, resolve_source
from explain_step.tracking.temporary import goes_with
from explain_step.tracking.upload import upload

if TYPE_CHECKING:
    import weakref

    from explain_step.config import Config
    from explain_step.snapshot import ModelRef, Previous, Snapshot
    from explain_step.tracking.logged import LoggedSnapshot
    from explain_step.tracking.spool import Asked, Entry
    from explain_step.tracking.target import Target
    from explain_step.types import Subject

logger = logging.getLogger("explain_step.tracking")

LATER = "MLflow could not be asked when the model was explained; no predictions were compared"


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What MLflow knows of the explained model; ``whole`` is False where it could not be asked."""

    ref: ModelRef
    previous: Previous | None = None
    whole: bool = True


def find(asked: Asked, *, anew: bool = False) -> Target:
    """Resolve what the caller asked for; the errors of `resolve`. ``anew``: whatever run is active by now."""
    uri = asked.tracking_uri
    if anew and asked.run_id is None:
        return resolve_source(str(asked.model_uri), tracking_uri=uri)
    if not asked.run_only:
        return resolve(run_id=asked.run_id, model_uri=asked.model_uri, tracking_uri=uri)
    target = resolve(run_id=asked.run_id, tracking_uri=uri)
    return replace(target, model_id=None, model_uri=None, model_location=None, versions=(), note=None)


def reach(asked: Asked, *, needed: bool) -> Target | None:
    """Find the target and mark it ``pending``; None where MLflow does not answer and the model is here anyway.

    Raises
    ------
    InvalidInput
        What is asked for does not exist.
    """
    try:
        target = find(asked)
    except Exception as error:  # stores raise types of their own; without a model there is nothing to explain
        if needed or isinstance(error, InvalidInput):
            raise
        logger.warning("explain_step: MLflow was not reached, the model is explained all the same: %s", error)
        return None
    try:
        marks.mark(target, status="pending", reason="the explanation was started")
    except Exception as error:  # noqa: BLE001 - a hint for people, and no reason to explain nothing
        logger.warning("explain_step: the status 'pending' could not be written: %s", error)
    return target


def facts_of(target: Target | None, *, subject: Subject, config: Config) -> Facts:
    """Return which model was explained, how sure that is, and what was explained before.

    Raises
    ------
    BindingError
        The logged model is another one than the explained.
    """
    from explain_step.snapshot import ModelRef

    blank = ModelRef(model_class=subject.model.model_class, binding_note=LATER)
    if target is None:
        return Facts(ref=blank, whole=False)
    try:
        ref = model_ref(target, subject=subject, config=config)
        return Facts(ref=ref, previous=marks.previous_snapshot(target))
    except Exception as error:  # stores raise types of their own; what the package refuses is refused
        if isinstance(error, ExplainStepError) and not isinstance(error, NoAnswer):
            raise
        logger.warning("explain_step: the model's files could not be read from MLflow: %s", error)
    known = replace(blank, run_id=target.run_id, model_id=target.model_id, uri=target.model_uri)
    return Facts(ref=known, whole=False)


def ref_of(target: Target, *, model_class: str) -> ModelRef:
    """Return which model a target is, without comparing predictions: the explained rows are gone."""
    from explain_step.snapshot import ModelRef

    name, version = target.versions[0] if target.versions else (None, None)
    return ModelRef(
        name=name,
        version=version,
        run_id=target.run_id,
        model_id=target.model_id,
        uri=target.model_uri,
        model_class=model_class,
        digest=model_digest(target),
        binding_note=LATER,
    )


def later_snapshot_id(target: Target, snapshot: Snapshot) -> str | None:
    """Return the snapshot that the tags name, where it was made after this one."""
    current = marks.previous_snapshot_id(target)
    if current is None or current == snapshot.id:
        return None
    place, folder = evidence_place(target), f"{FOLDER}/{current}"
    if MANIFEST not in place.children(folder):
        return None
    return current if created_at(place, folder) > snapshot.manifest["created_at"] else None


def deliver(
    snapshot: Snapshot,
    target: Target | None,
    *,
    asked: Asked,
    whole: bool,
    on_error: Literal["mark", "raise"],
) -> LoggedSnapshot:
    """Store a written snapshot in MLflow; where that fails it stays in the spool, for ``explain-step resume``.

    Raises
    ------
    Exception
        With ``on_error="raise"``, what the server or store raised.
    """
    local = _lent(snapshot)
    entry = _keep(snapshot, spool.as_resolved(asked, target), whole=whole)
    with spool.held(entry):
        try:
            if target is None or not whole:
                raise NoAnswer(refusal())
            logged = upload(snapshot, target)
        except Exception as error:  # promise 1; stores raise types of their own
            logged = _undelivered(snapshot, target, error=error, entry=entry)
            _settle(local, kept=entry is None)
            if on_error == "raise":
                raise
            return logged
        spool.forget(entry)
    return logged


def _lent(snapshot: Snapshot) -> weakref.finalize[..., Any] | None:
    """Let the step's own temporary folder go with the snapshot, or with the process, also where that is interrupted."""
    parent = snapshot.path.parent
    return goes_with(snapshot, parent) if parent.name.startswith("explain_step_") else None


def _settle(local: weakref.finalize[..., Any] | None, *, kept: bool) -> None:
    """Keep the local copy where it is the only one; remove it where the spool has another."""
    if local is not None:
        local.detach() if kept else local()


def _keep(snapshot: Snapshot, asked: Asked, *, whole: bool) -> Entry | None:
    try:
        return spool.keep(snapshot, asked, whole=whole)
    except OSError as error:
        why = error.args[0][-1][-1] if isinstance(error, shutil.Error) else error  # it names each file
        logger.warning("explain_step: the spool %s cannot be written: %s", spool.spool_folder(), why)
        return None


def _undelivered(
    snapshot: Snapshot, target: Target | None, *, error: Exception, entry: Entry | None
) -> LoggedSnapshot:
    """Say where the snapshot is; on the run too, where the server takes a tag."""
    if entry is None:
        kept, remedy = snapshot.path, "copy it, the spool could not be written"
    else:
        kept, remedy = entry.directory, f"finish with: {command(entry)}"
    why = mask_text(f"{type(error).__name__}: {error}").rstrip(".")
    reason = f"the explanation was made and is not stored in MLflow; {remedy} (kept in {kept}). {why}"
    logger.warning("explain_step: %s", reason)
    logged = marks.undelivered(target, reason=reason, silent=target is None or marks.unreachable(error))
    return replace(logged, id=snapshot.id, spool=kept)


def command(entry: Entry) -> str:
    """Return the command that finishes an entry."""
    folder = entry.path.parent
    return (
        "explain-step resume" if folder == spool.spool_folder() else f"explain-step resume --spool {folder}"
    )
