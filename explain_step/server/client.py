"""The server's own stores behind the few methods of a client that gathering evidence needs. No HTTP loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from explain_step.server import rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A version that somebody asks to create, which is judged before it exists; or one as it was just read."""

    name: str
    version: str
    source: str
    run_id: str | None
    tags: dict[str, str]
    location: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreClient:
    """The reading methods of ``MlflowClient`` on the stores of this process.

    Attributes
    ----------
    registry : SqlAlchemyStore
        Of the model registry.
    tracking : callable
        Returns the tracking store; asked late, the server makes it when it is first needed.
    known : Candidate, optional
        Answers for a version that is not there yet, or that was read a moment ago for the same request.
    """

    registry: Any
    tracking: Callable[[], Any]
    known: Candidate | None = None
    tracking_uri: str = "explain-gate: in process"

    def get_model_version(self, name: str, version: str) -> Any:
        """Return a version."""
        if self._is_known(name, version):
            return self.known
        return self.registry.get_model_version(name, version)

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        """Return the version behind an alias."""
        return self.registry.get_model_version_by_alias(name, alias)

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        """Return where the files of a version are."""
        if self.known is not None and self._is_known(name, version):
            return self.known.location
        return str(self.registry.get_model_version_download_uri(name, version))

    def get_run(self, run_id: str) -> Any:
        """Return what the gate needs of a run."""
        return rows.run_row(self.tracking(), run_id)

    def get_logged_model(self, model_id: str) -> Any:
        """Return what the gate needs of a logged model that is not deleted."""
        return rows.model_row(self.tracking(), model_id)

    def _is_known(self, name: str, version: str) -> bool:
        wanted = self.known
        return wanted is not None and (wanted.name, wanted.version) == (name, str(version))


def tracking_of_server() -> Any:
    """Return the tracking store of the server process."""
    from mlflow.server.handlers import _get_tracking_store

    return _get_tracking_store()


def registry_of_server() -> Any:
    """Return the registry store of the server process."""
    from mlflow.server.handlers import _get_model_registry_store

    return _get_model_registry_store()
