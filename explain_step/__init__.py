"""explain_step: the last step of an ML training script.

`explain` turns a fitted model and held-out rows into an explanation snapshot: global importance, dependence, segments
and examples, each number with an interval, each table naming the quantity it explains. `log_explanations` does the same
and logs the snapshot to MLflow under the logged model, tied to its registered versions. `training_run` is a
``mlflow.start_run`` that marks runs without an explanation as incomplete. `read` and `verify` take a directory, a run,
a model version or an alias. `replay` recomputes a snapshot and compares the numbers. `gate` judges a registered version
by a policy, `promote` moves an alias where the policy allows it, `review` records a person's word on a snapshot.

Read `explain_step.step` first: it is the one composition of all parts.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explain_step.config import Config
    from explain_step.errors import (
        ExplainStepError,
        InvalidInput,
        NotApplicable,
        PredictionFailed,
        SnapshotError,
    )
    from explain_step.loading import load_model
    from explain_step.promotion import gate, promote, review
    from explain_step.replaying import replay
    from explain_step.resuming import resume
    from explain_step.snapshot import Snapshot
    from explain_step.step import explain, log_explanations, read, training_run, verify
    from explain_step.tracking import LoggedSnapshot
    from explain_step.tracking.auditing import audit

__version__ = "0.1.0"

_HOMES = {
    "Config": "explain_step.config",
    "ExplainStepError": "explain_step.errors",
    "InvalidInput": "explain_step.errors",
    "LoggedSnapshot": "explain_step.tracking",
    "NotApplicable": "explain_step.errors",
    "PredictionFailed": "explain_step.errors",
    "Snapshot": "explain_step.snapshot",
    "SnapshotError": "explain_step.errors",
    "audit": "explain_step.tracking.auditing",
    "explain": "explain_step.step",
    "gate": "explain_step.promotion",
    "load_model": "explain_step.loading",
    "log_explanations": "explain_step.step",
    "promote": "explain_step.promotion",
    "read": "explain_step.step",
    "replay": "explain_step.replaying",
    "resume": "explain_step.resuming",
    "review": "explain_step.promotion",
    "training_run": "explain_step.step",
    "verify": "explain_step.step",
}

__all__ = [
    "Config",
    "ExplainStepError",
    "InvalidInput",
    "LoggedSnapshot",
    "NotApplicable",
    "PredictionFailed",
    "Snapshot",
    "SnapshotError",
    "__version__",
    "audit",
    "explain",
    "gate",
    "load_model",
    "log_explanations",
    "promote",
    "read",
    "replay",
    "resume",
    "review",
    "training_run",
    "verify",
]


class _Package(ModuleType):
    """The package itself: a public function keeps its name beside a subpackage of the same name.

    The import system binds a subpackage to its parent, whenever that is first imported. ``explain_step.gate`` would be
    the function or the package by the order of imports; here it is the function, and
    ``from explain_step.gate import decide`` still finds the package in `sys.modules` (docs/adr/0006).
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import a public name on first use: ``import explain_step`` itself loads nothing heavy."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module 'explain_step' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
