"""One registered version: find it by URI, read and move aliases, tag it, and say what a server refused."""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from explain_step.errors import InvalidInput
from explain_step.tracking.marks import PREFIX

if TYPE_CHECKING:
    from explain_step.gate import BreakGlassUse

logger = logging.getLogger("explain_step.tracking")

BREAK_GLASS_TAG = f"{PREFIX}break_glass"
VERSION_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w\-]+))")
ALIAS = re.compile(r"[\w\-]{1,255}")
RESERVED_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)
NO_SUCH = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
DENIED = "PERMISSION_DENIED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """A registered version and the client that found it."""

    client: Any
    name: str
    version: str

    @property
    def uri(self) -> str:
        """``models:/name/version``."""
        return f"models:/{self.name}/{self.version}"


def find(model_uri: str, *, tracking_uri: str | None = None) -> Registered:
    """Return the version that a URI names; an alias is resolved here, once.

    Parameters
    ----------
    model_uri : str
        ``models:/name/3`` or ``models:/name@alias``.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Raises
    ------
    InvalidInput
        Another form, no such version, or a prompt.
    """
    parts = VERSION_URI.fullmatch(str(model_uri).rstrip("/"))
    if parts is None:
        raise InvalidInput(_not_registered(str(model_uri)))
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=tracking_uri)
    name, version, alias = parts["name"], parts["version"], parts["alias"]
    try:
        if version is None:
            version = str(client.get_model_version_by_alias(name, alias).version)
        else:
            version = str(client.get_model_version(name, version).version)
    except MlflowException as error:
        if error.error_code not in NO_SUCH:
            raise
        what = "a prompt, not a model" if _is_prompt(client, name) else "no registered version"
        msg = f"{model_uri} names {what} at {client.tracking_uri}: {error.message}"
        raise InvalidInput(msg) from error
    return Registered(client=client, name=name, version=version)


def _not_registered(uri: str) -> str:
    rule = f"Argument model_uri must be models:/name/3 or models:/name@alias, got {uri!r}."
    if uri.startswith(("runs:/", "models:/m-")):
        return f"{rule} Only a registered version can be promoted: mlflow.register_model({uri!r}, name)."
    if uri.startswith("models:/"):
        return f"{rule} Give the number of the version or an alias: names such as 'latest' move."
    return rule


def _is_prompt(client: Any, name: str) -> bool:
    """Tell whether the name is a prompt: MLflow's client says of those only that there is no such model."""
    from mlflow.exceptions import MlflowException

    ask = getattr(client, "get_prompt", None)
    try:
        return ask is not None and ask(name) is not None
    except MlflowException:
        return False


def check_alias(alias: str) -> None:
    """Raise `InvalidInput` for a name that MLflow would refuse as an alias, before anything is written."""
    if not ALIAS.fullmatch(alias):
        msg = f"Argument alias must be 1 to 255 letters, digits, '_' or '-', got {alias!r}."
        raise InvalidInput(msg)
    if RESERVED_ALIAS.fullmatch(alias):
        msg = f"Argument alias must not be {alias!r}: MLflow keeps 'latest' and 'v<number>' for itself."
        raise InvalidInput(msg)


def version_behind(registered: Registered, alias: str) -> str | None:
    """Return the version that an alias of the registered model points to now; None where there is none."""
    found = registered.client.get_registered_model(registered.name).aliases.get(alias)
    return None if found is None else str(found)


def move_alias(
    registered: Registered, alias: str, *, to: str | None, break_glass: BreakGlassUse | None = None
) -> None:
    """Let an alias point to a version, or to none.

    ``break_glass`` is written to a tag of the version for the time of the move: a gated server decides by its
    own policy, and looks there whether somebody answers for an exception.
    """
    if to is None:
        registered.client.delete_registered_model_alias(registered.name, alias)
        return
    if break_glass is None:
        registered.client.set_registered_model_alias(registered.name, alias, to)
        return
    use = {
        "owner": break_glass.owner,
        "reason": break_glass.reason,
        "expires": break_glass.expires.isoformat(),
    }
    set_tag(registered, BREAK_GLASS_TAG, json.dumps(use, sort_keys=True))
    try:
        registered.client.set_registered_model_alias(registered.name, alias, to)
    finally:
        _forget_break_glass(registered)


def _forget_break_glass(registered: Registered) -> None:
    """Take the tag away; where that fails it ends by itself when it expires."""
    from mlflow.exceptions import MlflowException

    try:
        registered.client.delete_model_version_tag(registered.name, registered.version, BREAK_GLASS_TAG)
    except MlflowException as error:
        logger.warning("explain_step: the tag %s could not be removed: %s", BREAK_GLASS_TAG, error)


def tags_of(registered: Registered) -> dict[str, str]:
    """Return the tags of the version as they are now."""
    return dict(registered.client.get_model_version(registered.name, registered.version).tags or {})


def set_tag(registered: Registered, key: str, value: str) -> None:
    """Set a tag of the version."""
    registered.client.set_model_version_tag(registered.name, registered.version, key, value)


def server_refusal(error: BaseException) -> str | None:
    """Return why a server refused, in its own words; None where an error is no refusal.

    Some calls of MLflow's client wrap a refusal: copying a version turns it into an internal error that
    blames the registry backend.

    Examples
    --------
    >>> server_refusal(ValueError("Failed to create a copy. Error: PERMISSION_DENIED: not explained"))
    >>> from mlflow.exceptions import MlflowException
    >>> server_refusal(MlflowException("Failed to create a copy. Error: PERMISSION_DENIED: not explained"))
    'not explained'
    """
    from mlflow.exceptions import MlflowException

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MlflowException):
            text = str(cause.message)
            _, wrapped, reason = text.partition(f"{DENIED}: ")
            if wrapped:
                return reason
            if cause.error_code == DENIED:
                return text
        cause = cause.__cause__
    return None


def person() -> str:
    """Return who works here: the name for MLflow's server, or the user of the operating system."""
    named = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return "unknown"
