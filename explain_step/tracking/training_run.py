"""A training run that knows whether its model was explained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from explain_step.tracking import marks
from explain_step.tracking.deadline import connect, within
from explain_step.tracking.target import resolve
from explain_step.types import Status

if TYPE_CHECKING:
    from mlflow import ActiveRun

logger = logging.getLogger("explain_step.tracking")

STATUS = f"{marks.PREFIX}status"
NOT_CALLED = "the run ended without an explanation; call explain_step.log_explanations in it"


@contextmanager
def training_run(**start_run_kwargs: Any) -> Iterator[ActiveRun]:
    """``mlflow.start_run`` that is marked ``pending`` at entry and judged at exit.

    Parameters
    ----------
    **start_run_kwargs
        As in ``mlflow.start_run``.

    Yields
    ------
    mlflow.ActiveRun

    Notes
    -----
    A run whose body ends without `explain_step.log_explanations` gets the status ``incomplete``, and so do
    its newest logged model and the versions of it (a model without any tag counts as incomplete too). When
    the body raises, the run ends ``FAILED`` as with MLflow, with the status ``failed``. Marking never fails a
    run: an error of the tracking server is logged.

    Examples
    --------
    >>> import explain_step  # doctest: +SKIP
    >>> with explain_step.training_run(run_name="weekly"):  # doctest: +SKIP
    ...     model = train()
    ...     mlflow.sklearn.log_model(model, name="model")
    ...     explain_step.log_explanations(model, X_test, y_test)
    """
    import mlflow

    with mlflow.start_run(**start_run_kwargs) as run:
        run_id = run.info.run_id
        _quietly(lambda: _begin(run_id))
        try:
            yield run
        except BaseException as error:
            reason = f"the run failed before it was explained: {type(error).__name__}: {error}"
            _quietly(lambda: _judge(run_id, status="failed", reason=reason))
            raise
        _quietly(lambda: _judge(run_id, status="incomplete", reason=NOT_CALLED))


def _begin(run_id: str) -> None:
    if _status(run_id) not in ("complete", "degraded", "waived"):  # a resumed run keeps what it has
        _mark(run_id, status="pending", reason="the training run was started")


def _mark(run_id: str, *, status: Status, reason: str) -> None:
    marks.mark(resolve(run_id=run_id), status=status, reason=reason)


def _judge(run_id: str, *, status: Status, reason: str) -> None:
    """Mark the run where nothing has decided its status since the start."""
    if _status(run_id) in (None, "pending"):
        _mark(run_id, status=status, reason=reason)


def _status(run_id: str) -> str | None:
    found = connect(None).get_run(run_id).data.tags.get(STATUS)
    return None if found is None else str(found)


def _quietly(act: Callable[[], None]) -> None:
    try:
        with within():
            act()
    except Exception as error:  # noqa: BLE001 - promise 1: marking never costs a training run; said in the log
        logger.warning("explain_step: the run could not be marked: %s", error)
