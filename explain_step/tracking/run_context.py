"""MLflow run-context plugin: runs that have to be explained carry the status ``pending`` from their start.

MLflow imports this module while it is itself imported: nothing heavy is imported, and nothing is raised.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "EXPLAIN_STEP_REQUIRED"
YES = frozenset({"1", "true", "yes", "on"})
NO = frozenset({"", "0", "false", "no", "off"})
FLUENT = "mlflow.tracking.fluent"
REASON = "an explanation is required here ({}); none is logged yet"


class RequiredExplanation:
    """Stamp ``explain_step.status=pending`` on runs (and logged models) where the environment asks for it.

    ``EXPLAIN_STEP_REQUIRED``: ``1``, ``true``, ``yes`` or ``on`` for every run, or names and ids of
    experiments, separated by commas. Tags that are given to ``mlflow.start_run`` win. A run that is started
    another way than by ``mlflow.start_run``, or whose experiment cannot be asked for, is stamped: a mark too
    many is seen, a missing one is not.
    """

    def in_context(self) -> bool:
        """Tell whether the run that is being started has to be explained."""
        asked = os.environ.get(VARIABLE, "").strip()
        if asked.casefold() in NO:
            return False
        return asked.casefold() in YES or _listed(asked, experiment_id=started_in())

    def tags(self) -> dict[str, str]:
        """Return the tags of a run that is not explained yet."""
        return {
            "explain_step.status": "pending",
            "explain_step.reason": REASON.format(f"{VARIABLE}={os.environ.get(VARIABLE, '')}")[:500],
        }


def started_in() -> str | None:
    """Return the id of the experiment of the run that is being started; None where it is not known.

    A provider is not told the experiment, and the active one is another where ``start_run`` is given an
    ``experiment_id``. It stands in the frame of MLflow's function that asks for the tags.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == FLUENT:
            for name in ("exp_id_for_run", "experiment_id"):
                found = frame.f_locals.get(name)
                if found is not None:
                    return str(found)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _listed(asked: str, *, experiment_id: str | None) -> bool:
    entries = {entry.strip() for entry in asked.split(",")} - {""}
    if experiment_id is None or experiment_id in entries:
        return True
    name = _name(experiment_id)
    return name is None or name in entries


def _name(experiment_id: str) -> str | None:
    """Return the name of an experiment; None where it cannot be asked for."""
    try:
        from mlflow import MlflowClient

        return str(MlflowClient().get_experiment(experiment_id).name)
    except Exception:  # noqa: BLE001 - starting a run never fails for a mark; not knowing means that it is stamped
        return None
