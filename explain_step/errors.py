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


class NoAnswer(ExplainStepError, TimeoutError):
    """MLflow gave no answer in the time that a step may wait for it; what was made is kept in the spool."""


class MissingDependency(ExplainStepError, ImportError):
    """An optional library is needed; the message has the install line."""


def require(module: str, *, extra: str, package: str | None = None) -> None:
    """Raise `MissingDependency` with an install line that holds however this package was installed.

    Parameters
    ----------
    module : str
        Top-level module that is needed.
    extra : str
        The extra of this package that brings it, named beside.
    package : str, optional
        Name to install, where it is not the module's.

    Raises
    ------
    MissingDependency
        The module cannot be imported.

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
        msg = f"{module} is not installed; install it with: pip install {package or module} (extra {extra!r})"
        raise MissingDependency(msg)
