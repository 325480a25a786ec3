"""Two requests at once: who deletes leaves a mark before the last look, and who promotes looks for marks afterwards.

Either looks after it has written, so that at least one of the two sees the other and gives way. What can be taken back
(a run, a logged model, an experiment, a name) needs no mark: it is deleted, looked at again, and restored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from explain_step.gate import Policy, Request, folded
from explain_step.server.protection import in_stages, protected_aliases
from explain_step.server.seal import spots
from explain_step.tracking.marks import PREFIX
from explain_step.tracking.place import Place

DELETING_TAG = f"{PREFIX}deleting"
"""On a version or registered model that is about to go; only the server writes it."""
Promotion = tuple[str, Request]
"""A version, and the alias or stage that is asked for it."""
Judging = Callable[[str, str, Request, Policy], Any]
STALE = timedelta(minutes=10)
"""A mark that is older was left by a server that ended meanwhile."""


def is_mark(text: str | None) -> bool:
    """Tell from the value of `DELETING_TAG` whether somebody is deleting what has it.

    Examples
    --------
    >>> now = datetime.now(UTC)
    >>> is_mark(now.isoformat()), is_mark((now - STALE).isoformat()), is_mark(None)
    (True, False, False)
    """
    if text is None:
        return False
    try:
        return datetime.now(UTC) - datetime.fromisoformat(text) < STALE
    except (ValueError, TypeError):  # TypeError: a time without a zone
        return False


@contextlib.contextmanager
def marked(store: Any, name: str, version: Any = None) -> Iterator[None]:
    """Keep a mark on a version, or a registered model, while it is deleted; where it is not deleted the mark goes.

    ``store`` is MLflow's own: the guarded one takes no such tag.
    """
    from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
    from mlflow.exceptions import MlflowException

    now = datetime.now(UTC).isoformat()
    if version is None:
        store.set_registered_model_tag(name, RegisteredModelTag(DELETING_TAG, now))
    else:
        store.set_model_version_tag(name, version, ModelVersionTag(DELETING_TAG, now))
    try:
        yield
    except BaseException:
        with contextlib.suppress(MlflowException):  # somebody else has deleted it
            if version is None:
                store.delete_registered_model_tag(name, DELETING_TAG)
            else:
                store.delete_model_version_tag(name, version, DELETING_TAG)
        raise


def twice(write: Callable[[], Any]) -> Any:
    """Write; once more where another request was the first to insert the same row in the same moment."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import IntegrityError

    try:
        return write()
    except MlflowException as error:
        if not isinstance(error.__cause__, IntegrityError):  # the text differs from driver to driver
            raise
        return write()


def release(
    guarded: Any, store: Any, policy: Policy, name: str, *, judge: Judging, only: Promotion | None = None
) -> None:
    """Take protected aliases and stages away from versions of a registered model that are not proven.

    Somebody has set them while models swapped names. Who judged a version that had the name before, and sets the alias on
    this one, sees that and takes it back: by name, which finds nothing while the name is on its way, and not at all where
    another request had just set the same alias. So whoever gives way looks at what is there.

    Parameters
    ----------
    guarded, store : store
        The guarded one, and MLflow's own.
    policy : Policy
    name : str
        The name that the model has now.
    judge : callable
        Name, version, request and policy; raises where the version is not proven, or cannot be judged.
    only : (str, Request), optional
        The version and what was asked for it; everything else was there before, and stays.
    """
    held = [
        (v, Request(action="alias", target=a)) for a, v in protected_aliases(guarded, policy, name).items()
    ]
    held += [(v, Request(action="stage", target=s)) for v, s in in_stages(guarded, policy, name).items()]
    for version, request in held:
        if only is not None and _folded(*only) != _folded(version, request):
            continue
        if _is_proven(judge, name, version, request, policy):
            continue
        if request.action == "alias":
            store.delete_registered_model_alias(name, request.target)
        else:
            store.transition_model_version_stage(name, version, "None", False)


def _folded(version: str, request: Request) -> tuple[str, str, str]:
    """Return a promotion as a policy compares it: MLflow takes ``production`` for ``Production``."""
    return version, request.action, folded(request.target or "")


def _is_proven(judge: Judging, name: str, version: str, request: Request, policy: Policy) -> bool:
    try:
        judge(name, version, request, policy)
    except Exception:  # noqa: BLE001 - what cannot be judged is not proven
        return False
    return True


@contextlib.contextmanager
def in_turn(tracking: Callable[[], Any], log: Place | None) -> Iterator[None]:
    """Let one request at a time, of all workers, join the decision log of a run or logged model; None waits for nobody.

    Artifact stores have no compare-and-set. A row that is set to what it is waits for the same of others, in every
    database; readers do not.
    """
    if log is None:
        yield
        return
    from mlflow.store.tracking.dbmodels.models import SqlLoggedModel, SqlRun

    spot = next(spots(log.location))
    table: Any = SqlRun if spot.owner == "run" else SqlLoggedModel
    named = SqlRun.run_uuid == spot.id if table is SqlRun else SqlLoggedModel.model_id == f"m-{spot.id}"
    with tracking().ManagedSessionMaker(read_only=False) as session:
        stage = {table.lifecycle_stage: table.lifecycle_stage}
        session.query(table).filter(named).update(stage, synchronize_session=False)
        yield
