"""What happens when ``mlflow server`` starts: the plugins are joined, and half a gate refuses to serve.

MLflow has an entry point for each kind of store and none for the start of a server. The module
``mlflow.server`` is imported by the command and by every worker, before the first request: what stands here
runs right after that import.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import inspect
import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from explain_step.errors import ExplainStepError
from explain_step.secret_masking import mask_text, told
from explain_step.server import settings
from explain_step.server.audit_log import check_writable
from explain_step.server.settings import MODE, SCHEME, Deployment

logger = logging.getLogger("explain_step.gate")
SERVER_MODULE = "mlflow.server"
OLDEST_MLFLOW = (3, 17)
"""Whose stores the guards were held against; an older server has other methods and routes."""
NEWEST_MLFLOW = (4, 0)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds ``mlflow.server`` as usual, and calls `started` when it has been executed."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != SERVER_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                started(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def watch() -> None:
    """Wait for ``mlflow.server`` to be imported in this process."""
    if SERVER_MODULE not in sys.modules and not any(isinstance(f, _AfterImport) for f in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def started(server: ModuleType) -> None:
    """Join the plugins in a worker; in the command itself, check the options before the workers start.

    Raises
    ------
    SystemExit
        The gate would be half there; the message names what is missing and the remedy.
    """
    _check_before(server)
    deployment = settings.deployment_of_worker()
    if deployment.backend_uri is None and deployment.destination is None:
        return  # the command itself, or a client that imports parts of the server
    _refuse_half(deployment)
    _guard_stores(deployment)
    _add_health_route(server, deployment)
    if settings.mode() == "dry-run":
        logger.warning("explain_step gate: DRY RUN, nothing is refused (%s=dry-run)", MODE)


def _check_before(server: ModuleType) -> None:
    """Let the command check its options when it is about to start the workers: those would be restarted forever."""
    run = getattr(server, "_run_server", None)
    if run is None:
        return

    @functools.wraps(run)
    def checked(*args: Any, **kwargs: Any) -> Any:
        options = inspect.signature(run).bind(*args, **kwargs).arguments
        deployment = settings.deployment_of_command(options)
        if _mentions_gate(deployment):
            _refuse_half(deployment)
            _refuse(_unopenable(deployment))
        return run(*args, **kwargs)

    server._run_server = checked  # type: ignore[attr-defined]


def _refuse_half(deployment: Deployment) -> None:
    _refuse(configuration_problem(deployment))


def _refuse(problem: str | None) -> None:
    if problem is not None:
        message = f"explain_step gate: this server does not start. {problem}"
        raise SystemExit(message)


def configuration_problem(deployment: Deployment) -> str | None:
    """Say what makes the gate half a gate, and the remedy; None where it is whole."""
    import mlflow

    version = tuple(int(part) for part in mlflow.__version__.split(".")[:2])
    if not OLDEST_MLFLOW <= version < NEWEST_MLFLOW:
        return f"MLflow {mlflow.__version__} is not supported by the server gate; install a version from 3.17 and below 4."
    if str(deployment.backend_uri or "").startswith(SCHEME):
        return f"--backend-store-uri takes the plain URI of the database; put {SCHEME} before --registry-store-uri."
    if deployment.read_replica:
        return (
            "A read replica answers late: a version, a rejection or a finished model that it does not know yet would be "
            "judged as it was. Start without --read-replica-backend-store-uri."
        )
    if _has_workspaces():
        return (
            "Workspaces are not guarded: deleting one takes champions and their runs with it, and its artifact root "
            "may lie outside the seal. Start without --enable-workspaces."
        )
    return _half(deployment) or _unsealable(deployment) or _unusable()


def _has_workspaces() -> bool:
    """Whether MLflow's workspaces are on; their store is a plugin point of its own, which nothing here sees."""
    from mlflow import environment_variables

    switch = getattr(environment_variables, "MLFLOW_ENABLE_WORKSPACES", None)
    return switch is not None and bool(switch.get())


def _half(deployment: Deployment) -> str | None:
    if not deployment.guards_registry:
        return f"The artifacts are sealed and the registry is open: add --registry-store-uri {SCHEME}<database URI>."
    if deployment.artifacts_only:
        return (
            "With --artifacts-only nothing here knows which models are finished; serve both from one server."
        )
    if deployment.serves_artifacts and not deployment.seals_artifacts:
        return (
            "The registry is guarded and the artifacts are open: add --artifacts-destination "
            f"{SCHEME}file:///path (or {SCHEME}s3://…), or --no-serve-artifacts."
        )
    return None


def _unsealable(deployment: Deployment) -> str | None:
    """Say that there is no sealed store of this kind: MLflow takes what is no URI for the name of a folder."""
    from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

    kinds = [
        name.removeprefix(SCHEME)
        for name in get_registered_artifact_repositories()
        if name.startswith(SCHEME)
    ]
    destination = settings.stripped(str(deployment.destination))
    if not deployment.seals_artifacts or destination.partition(":")[0] in kinds:
        return None
    return (
        f"--artifacts-destination {mask_text(str(deployment.destination))}: artifacts can be sealed in "
        f"{', '.join(sorted(kinds))}; a directory is written {SCHEME}file:///path."
    )


def _unopenable(deployment: Deployment) -> str | None:
    """Open the store once: a missing library or credential is told now, and not at the first upload."""
    from explain_step.server.places import unguarded

    if not deployment.seals_artifacts:
        return None
    try:
        unguarded(settings.stripped(str(deployment.destination)))
    except Exception as error:  # noqa: BLE001 - each store has errors of its own
        return (
            f"--artifacts-destination {mask_text(str(deployment.destination))} cannot be opened "
            f"({told(error, most=300)}); install what MLflow needs for it, or give credentials."
        )
    return None


def _unusable() -> str | None:
    try:
        settings.mode()
        settings.timeout()
        settings.current_policy()
    except ExplainStepError as error:
        return str(error)
    return check_writable(settings.audit_path())


def _mentions_gate(deployment: Deployment) -> bool:
    uris = (deployment.backend_uri, deployment.destination, deployment.registry_uri)
    return any(str(uri or "").startswith(SCHEME) for uri in uris)


def _guard_stores(deployment: Deployment) -> None:
    """Let every builder of stores in this server process return guarded ones.

    Requests reach the stores through MLflow's handlers; some of them, and jobs, call MLflow's own client inside the
    server, which has builders of its own and would else write past the gate (deleting the demo did).
    """
    from mlflow.server import handlers
    from mlflow.store.db.db_types import DATABASE_ENGINES
    from mlflow.tracking._model_registry.utils import set_registry_uri
    from mlflow.tracking._tracking_service import utils as clients

    from explain_step.server.tracking_store import guarding

    for registry in (handlers._tracking_store_registry, clients._tracking_store_registry):
        for scheme in DATABASE_ENGINES:
            registry.register(scheme, guarding(registry.get_store_builder(f"{scheme}://")))
    set_registry_uri(deployment.registry_uri)
    _guard_repositories(deployment)


def _guard_repositories(deployment: Deployment) -> None:
    """Guard the sealed store also where the server opens it by the URI behind ``explain-gate+``."""
    from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

    from explain_step.server.artifact_repository import guarding

    builders = get_registered_artifact_repositories()
    for scheme in [name for name in builders if not name.startswith(SCHEME)]:
        builders[scheme] = guarding(builders[scheme], deployment=deployment)


def _add_health_route(server: ModuleType, deployment: Deployment) -> None:
    from explain_step.server.health import ROUTE, report

    prefix = getattr(server, "_add_static_prefix", lambda route: route)
    server.app.add_url_rule(prefix(ROUTE), "explain_step_health", lambda: report(deployment), methods=["GET"])
