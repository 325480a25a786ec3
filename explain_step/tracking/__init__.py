"""The only client-side room that speaks to MLflow. It takes a client, never sets a global URI.

`resolve` finds run, logged model and versions; `mark` writes status tags; `upload` stores a snapshot; `fetch`
gets one back; `load_model` loads a target's model; `model_ref` says which model was explained and how sure
that is; `training_run` judges a run at its end. MLflow itself is imported when one of them is called.
"""

from __future__ import annotations

from explain_step.tracking.autologging import quiet_autologging
from explain_step.tracking.binding import binding, model_digest, model_ref
from explain_step.tracking.checked import load_directory, load_model
from explain_step.tracking.deadline import within
from explain_step.tracking.delivery import deliver, facts_of, find, later_snapshot_id, reach, ref_of
from explain_step.tracking.fetch import fetch
from explain_step.tracking.logged import LoggedSnapshot
from explain_step.tracking.marks import mark, mark_failure, previous_snapshot
from explain_step.tracking.signing import sign, sign_openssf
from explain_step.tracking.spool import Asked, asked_for
from explain_step.tracking.target import Target, resolve
from explain_step.tracking.training_run import training_run
from explain_step.tracking.upload import upload
from explain_step.tracking.verifying import verify

__all__ = [
    "Asked",
    "LoggedSnapshot",
    "Target",
    "asked_for",
    "binding",
    "deliver",
    "facts_of",
    "fetch",
    "find",
    "later_snapshot_id",
    "load_directory",
    "load_model",
    "mark",
    "mark_failure",
    "model_digest",
    "model_ref",
    "previous_snapshot",
    "quiet_autologging",
    "reach",
    "ref_of",
    "resolve",
    "sign",
    "sign_openssf",
    "training_run",
    "upload",
    "verify",
    "within",
]
