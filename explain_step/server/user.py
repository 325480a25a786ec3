"""Who sends the request that is being answered."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """A user name, and whether the server itself has checked it."""

    name: str = "unknown"
    authenticated: bool = False


def current_user() -> User:
    """Return the user whom MLflow's ``basic-auth`` app has authenticated; ``unknown`` without it.

    MLflow's app puts the name into Flask's request context. A name that the client merely states (a header,
    a credential that nobody checked) is not looked at.
    """
    from flask import g, has_request_context

    if has_request_context():
        name = g.get("mlflow_authenticated_user")
        if name:
            return User(name=str(name), authenticated=True)
    return User()
