"""Exceptions of the package.

Every message names the argument, the rule it broke, the value found and the remedy.
"""

from __future__ import annotations


class ExplainStepError(Exception):
    """Base class of every error that the package raises on purpose."""


class InvalidInput(ExplainStepError, ValueError):
    """An argument breaks a rule; nothing was computed."""


class NotApplicable(ExplainStepError):
    """A section, score or explainer cannot be made for this model and these rows; the text says why."""


class PredictionFailed(ExplainStepError):
    """The model raised in ``predict`` or returned something that cannot be explained."""


class SnapshotError(ExplainStepError):
    """A snapshot cannot be read, or what was read is not a snapshot."""


class BindingError(ExplainStepError):
    """The model in MLflow is not the one that was explained: its predictions differ."""


class MissingDependency(ExplainStepError, ImportError):
    """An optional library is needed; the message has the install line."""


def require(module: str, *, extra: str) -> None:
    """Raise `MissingDependency` with the install line when ``module`` cannot be imported.

    Examples
    --------
    >>> require("json", extra="shap")
    """
    from importlib.util import find_spec

    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        msg = f"{module} is not installed; install it with: pip install 'explain-step[{extra}]'"
        raise MissingDependency(msg)
