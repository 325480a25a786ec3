"""Finish what is in the spool: store it in MLflow as the step itself would have, once the server answers again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from explain_step.errors import SnapshotError
from explain_step.secret_masking import mask_text

if TYPE_CHECKING:
    from explain_step.snapshot import Snapshot
    from explain_step.tracking import Target
    from explain_step.tracking.spool import Entry

Outcome = Literal["stored", "waiting", "refused", "no_answer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed:
    """What became of one entry of the spool.

    Attributes
    ----------
    outcome : {"stored", "waiting", "refused", "no_answer"}
        ``stored``: all is in MLflow and the entry is removed. ``waiting``: a dry run would try it, or another process is
        sending it. ``refused``: it stays, and ``message`` says why. ``no_answer``: it stays, the server gave no answer.
    snapshot_id : str
        As stored; of an entry that was written without a server it differs from the spooled one.
    path : Path
        The entry.
    run_id, model_uri, tracking_uri : str, optional
        Where it belongs.
    """

    outcome: Outcome
    message: str
    snapshot_id: str
    path: Path
    run_id: str | None
    model_uri: str | None
    tracking_uri: str | None


def resume(
    *, spool: str | Path | None = None, tracking_uri: str | None = None, dry_run: bool = False
) -> tuple[Resumed, ...]:
    """Store every spooled snapshot in MLflow: evidence, copy, metrics, note and tags; a second call has nothing to do.

    Parameters
    ----------
    spool : path, optional
        Default: ``EXPLAIN_STEP_SPOOL``, or the user's data folder.
    tracking_uri : str, optional
        Send all entries there instead of where each was meant to go. No global URI is changed.
    dry_run : bool
        Look only; nothing is sent.

    Returns
    -------
    tuple of Resumed
        One for each entry, the oldest first; empty where the spool is.

    Notes
    -----
    Each entry has a deadline of its own (``EXPLAIN_STEP_DEADLINE``); a server that gave no answer is not asked again
    for the next. Where a later explanation of the same model is stored already, the tags stay with that one.

    Examples
    --------
    >>> import tempfile
    >>> resume(spool=tempfile.mkdtemp())
    ()
    """
    from explain_step.tracking import spool as spool_room

    folder = spool_room.spool_folder() if spool is None else Path(spool)
    silent: set[str | None] = set()
    done = []
    for entry in spool_room.entries(folder):
        found = _resumed(entry, tracking_uri=tracking_uri, dry_run=dry_run, silent=silent)
        if found.outcome == "no_answer":
            silent.add(found.tracking_uri)
        done.append(found)
    return tuple(done)


def _resumed(entry: Entry, *, tracking_uri: str | None, dry_run: bool, silent: set[str | None]) -> Resumed:
    from explain_step.tracking.marks import unreachable
    from explain_step.tracking.spool import held, usable_uri

    uri = tracking_uri or usable_uri(entry)
    shown = entry.asked.tracking_uri if uri is None else mask_text(uri)
    tell = partial(
        Resumed,
        path=entry.path,
        snapshot_id=entry.snapshot_id,
        run_id=entry.asked.run_id,
        model_uri=entry.asked.model_uri,
        tracking_uri=shown,
    )
    wrong = _wrong(entry, uri=uri)
    if wrong is not None:
        return _left(entry, tell) or tell(outcome="refused", message=wrong)
    if dry_run:
        return tell(outcome="waiting", message=f"kept since {entry.kept_at}")
    if shown in silent:
        return tell(outcome="no_answer", message="not asked again: the server gave no answer before")
    try:
        with held(entry) as ours:
            if not ours:
                return tell(outcome="waiting", message="another process is sending it")
            stored, message = _store(entry, uri=str(uri))
    except Exception as error:  # noqa: BLE001 - stores raise types of their own; the outcome says it, the entry stays
        text = mask_text(f"{type(error).__name__}: {error}")
        outcome: Outcome = "no_answer" if unreachable(error) else "refused"
        return _left(entry, tell) or tell(outcome=outcome, message=text)
    return replace(tell(outcome="stored", message=message), snapshot_id=stored)


def _left(entry: Entry, tell: Callable[..., Resumed]) -> Resumed | None:
    """Say of an entry that another ``resume`` finishes at the same time that it is stored; None where it is there."""
    from explain_step.tracking.spool import ENTRY

    if (entry.path / ENTRY).exists():
        return None
    return tell(outcome="stored", message="another resume has stored it meanwhile")


def _wrong(entry: Entry, *, uri: str | None) -> str | None:
    """Say what keeps an entry from being sent, as far as this machine knows."""
    from explain_step.snapshot import verify_directory

    broken = [f for f in verify_directory(entry.directory) if f.verdict != "pass"]
    if broken:
        return f"the spooled snapshot does not verify: {broken[0].code} {broken[0].message}"
    if uri is None:
        return f"{entry.asked.tracking_uri} was kept without its password; pass the tracking URI"
    if entry.asked.run_id is None and entry.asked.model_uri is None:
        return "it names neither a run nor a model"
    return None


def _store(entry: Entry, *, uri: str) -> tuple[str, str]:
    """Send one entry and remove it; return the id as stored, and what was done."""
    from explain_step import tracking
    from explain_step.tracking import spool, upload

    with tracking.within(), tempfile.TemporaryDirectory(prefix="explain_step_resumed_") as folder:
        target = tracking.find(replace(entry.asked, tracking_uri=uri), anew=True)
        shot = _complete(entry, target, folder=Path(folder))
        later = tracking.later_snapshot_id(target, shot)
        logged = upload(shot, target, newest=later is None)
    spool.forget(entry)
    where = logged.model_uri or logged.run_uri
    kept = "" if later is None else f"; the tags stay with the later snapshot {later[:12]}"
    return shot.id, f"{shot.status}, under {where}{kept}"


def _complete(entry: Entry, target: Target, *, folder: Path) -> Snapshot:
    """Return the spooled snapshot, with the model's digest where it could not be had before."""
    from explain_step import report, snapshot, tracking
    from explain_step.pages import stored_context, stored_figures

    shot = snapshot.read_directory(entry.directory)
    if entry.whole:
        _check_owner(shot, target)
        return shot
    ref = tracking.ref_of(target, model_class=shot.model.model_class)
    page, card = report.writers(partial(stored_context, shot, ref=ref), figures=partial(stored_figures, shot))
    previous = tracking.previous_snapshot(target)
    return snapshot.with_model(
        shot,
        ref,
        directory=folder,
        previous=previous if tracking.later_snapshot_id(target, shot) is None else None,
        page=page,
        card=card,
    )


def _check_owner(shot: Snapshot, target: Target) -> None:
    """Refuse to tie a snapshot to another logged model or run than the one that it was made for."""
    key = "run_id" if target.model_id is None else "model_id"
    ours, theirs = getattr(shot.model, key), getattr(target, key)
    if ours not in (None, theirs):  # what names no model is not tied to another one
        msg = f"The entry says {key} {theirs}, its snapshot was made for {ours}; nothing was stored. Explain that model."
        raise SnapshotError(msg)
