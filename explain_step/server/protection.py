"""What is protected, by the policy: names, and the versions that stand behind protected names now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from explain_step.gate import Policy, folded, matches
from explain_step.tracking.target import MODEL_ID

DELETED = "Deleted_Internal"
"""Stage in which MLflow's store keeps what was deleted."""
INACTIVE = ("none", "archived")
"""Stages of what is not in use."""


def protected_here(
    name: str, policy: Policy, *, alias: str | None = None, stage: str | None = None
) -> str | None:
    """Say why an alias or stage of a registered model, or the model itself, is protected; None where not."""
    if alias is not None and matches(alias, policy.protected.aliases):
        return f"the alias {alias!r} is protected"
    if stage is not None and matches(stage, policy.protected.stages):
        return f"the stage {stage!r} is protected"
    if matches(name, policy.protected.registered_models):
        return f"the registered model {name!r} is protected"
    return None


def into_stage(name: str, policy: Policy, stage: str) -> bool:
    """Tell whether a move to a stage is judged: not one out of use, where the policy does not protect that stage."""
    if folded(stage) in INACTIVE and not matches(stage, policy.protected.stages):
        return False
    return protected_here(name, policy, stage=stage) is not None


def in_stages(registry: Any, policy: Policy, name: str) -> dict[str, str]:
    """Return the versions of a registered model that are in a protected stage, each with its stage."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion as Version

    with registry.ManagedSessionMaker() as session:
        rows = _versions(registry, session, name=name).with_entities(Version.version, Version.current_stage)
        stages = {str(version): str(stage) for version, stage in rows.all()}
    return {version: stage for version, stage in stages.items() if matches(stage, policy.protected.stages)}


def protected_aliases(registry: Any, policy: Policy, name: str) -> dict[str, str]:
    """Return the protected aliases of a registered model, each with its version."""
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias as Alias

    with registry.ManagedSessionMaker() as session:
        found = query_of(registry, session, Alias).filter(Alias.name == name).all()
        named = {str(entry.alias): str(entry.version) for entry in found}
    return {alias: version for alias, version in named.items() if matches(alias, policy.protected.aliases)}


def holders_of_name(registry: Any, policy: Policy, name: str) -> list[str]:
    """Return the protected aliases and stages of a registered model, each as a text that names the version."""
    return _held(registry, policy, name=name)


def holders_of_version(registry: Any, policy: Policy, name: str, version: str) -> list[str]:
    """Return what holds one version."""
    return _held(registry, policy, name=name, version=int(version))


def holders_of_model(registry: Any, policy: Policy, model_id: str) -> list[str]:
    """Return what holds a logged model: every version of it, since copies share its place.

    A version holds its model and run also by being in a protected registered model.
    """
    return _held(registry, policy, within=True, location=model_id)


def holders_of_run(registry: Any, policy: Policy, run_id: str, *, without_model: bool = False) -> list[str]:
    """Return what holds a run: every version of it, since copies keep the run.

    ``without_model``: only versions whose files are the run's own.
    """
    place = f"/{run_id}/" if without_model else None
    return _held(registry, policy, within=True, run_id=run_id, location=place)


def is_registered(registry: Any, model_id: str) -> bool:
    """Tell whether any version is this logged model; no policy is needed for a no."""
    with registry.ManagedSessionMaker() as session:
        return _versions(registry, session, location=model_id).first() is not None


def has_versions(registry: Any, name: str) -> bool:
    """Tell whether there is any version, of a prompt or a model, that is not deleted."""
    with registry.ManagedSessionMaker() as session:
        return _versions(registry, session, name=name).first() is not None


def version_behind(registry: Any, name: str, alias: str) -> str | None:
    """Return the version that an alias of a registered model points to. The whole model would cost ten queries."""
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias as Alias

    with registry.ManagedSessionMaker() as session:
        named = query_of(registry, session, Alias).filter(Alias.name == name, Alias.alias == alias).first()
        return None if named is None else str(named.version)


def _held(registry: Any, policy: Policy, *, within: bool = False, **wanted: Any) -> list[str]:
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias as Alias

    held = []
    with registry.ManagedSessionMaker() as session:
        for found in _versions(registry, session, **wanted).all():
            uri = f"models:/{found.name}/{found.version}"
            if matches(str(found.current_stage), policy.protected.stages):
                held.append(f"{uri} is in the protected stage {found.current_stage!r}")
            if within and matches(found.name, policy.protected.registered_models):
                held.append(f"{uri} is in the protected registered model {found.name!r}")
            named = query_of(registry, session, Alias).filter(
                Alias.name == found.name, Alias.version == found.version
            )
            held.extend(
                f"{uri} has the protected alias {entry.alias!r}"
                for entry in named.all()
                if matches(entry.alias, policy.protected.aliases)
            )
    return held


def _versions(
    registry: Any,
    session: Any,
    *,
    name: str | None = None,
    version: int | None = None,
    run_id: str | None = None,
    location: str | None = None,
) -> Any:
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion as Version

    query = query_of(registry, session, Version).filter(Version.current_stage != DELETED)
    if name is not None:
        query = query.filter(Version.name == name)
    if version is not None:
        query = query.filter(Version.version == version)
    if run_id is not None:
        query = query.filter(Version.run_id == run_id)
    if location is not None:
        query = query.filter(Version.storage_location.contains(location) | Version.source.contains(location))
    return query


def query_of(registry: Any, session: Any, model: Any) -> Any:
    """Ask within the workspace of the request, where this MLflow has workspaces."""
    scoped = getattr(registry, "_get_query", None)
    return session.query(model) if scoped is None else scoped(session, model)


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a protected version comes from."""

    run_id: str | None
    model_id: str | None


def protected_versions(registry: Any, policy: Policy) -> list[tuple[Origin, str]]:
    """Return every version that a protected alias, stage or registered model holds, with the text that says so."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion as Version
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias as Alias

    def places(row: Any) -> list[str]:
        staged = matches(str(row.current_stage), policy.protected.stages)
        within = matches(row.name, policy.protected.registered_models)
        found = [f"is in stage {row.current_stage!r}"] if staged else []
        return [*found, f"is in the protected registered model {row.name!r}"] if within else found

    with registry.ManagedSessionMaker() as session:
        versions = session.query(Version).filter(Version.current_stage != DELETED)
        rows = [(row, text) for row in versions.all() for text in places(row)]
        joined = versions.join(Alias, (Alias.name == Version.name) & (Alias.version == Version.version))
        rows += [
            (row, f"has the protected alias {alias!r}")
            for row, alias in joined.add_columns(Alias.alias).all()
            if matches(str(alias), policy.protected.aliases)
        ]
        return [(_origin(row), f"models:/{row.name}/{row.version} {text}") for row, text in rows]


def _origin(row: Any) -> Origin:
    named = MODEL_ID.findall(str(row.storage_location or row.source or ""))
    return Origin(run_id=row.run_id or None, model_id=named[-1] if named else None)
