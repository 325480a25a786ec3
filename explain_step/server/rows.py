"""Narrow reads of the server's own tables: what a decision needs of a version, a run and a logged model.

MLflow's stores return whole entities, with every metric, parameter, data set and alias, in up to ten queries each; a run
may have thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from explain_step.server.protection import DELETED, query_of
from explain_step.tracking.evidence import REVIEW_TAG


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionNow:
    """A registered version as it is now, and a tag of it and of its registered model."""

    creation_timestamp: int
    source: str | None
    location: str | None
    tag: str | None
    tag_of_name: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInfo:
    """Of a run."""

    run_id: str
    user_id: str | None
    artifact_uri: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunData:
    """Of a run."""

    tags: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """A run, with the names that MLflow's entity has."""

    info: RunInfo
    data: RunData


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRow:
    """A logged model, with the names that MLflow's entity has."""

    model_id: str
    artifact_location: str
    source_run_id: str | None
    status: str
    tags: dict[str, str]


def version_now(registry: Any, name: str, version: str, *, tag: str) -> VersionNow | None:
    """Return a version that is not deleted, with the tag ``tag``."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion as Version
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersionTag as VersionTag
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelTag as NameTag

    with registry.ManagedSessionMaker() as session:
        named = query_of(registry, session, Version).filter(
            Version.name == name, Version.version == int(version), Version.current_stage != DELETED
        )
        row = named.with_entities(Version.creation_time, Version.source, Version.storage_location).first()
        own = query_of(registry, session, VersionTag).filter(
            VersionTag.name == name, VersionTag.version == int(version), VersionTag.key == tag
        )
        parent = query_of(registry, session, NameTag).filter(NameTag.name == name, NameTag.key == tag)
        marks = [q.with_entities(t.value).scalar() for q, t in ((own, VersionTag), (parent, NameTag))]
    if row is None:
        return None
    return VersionNow(
        creation_timestamp=row[0],
        source=row[1],
        location=row[2] or row[1],
        tag=marks[0],
        tag_of_name=marks[1],
    )


def reviews_of_snapshot(registry: Any, snapshot_id: str) -> list[str]:
    """Return the values of all review tags that name a snapshot, of deleted versions too: MLflow keeps their tags."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersionTag as VersionTag

    with registry.ManagedSessionMaker() as session:
        reviews = query_of(registry, session, VersionTag).filter(
            VersionTag.key.startswith(REVIEW_TAG, autoescape=True),
            VersionTag.value.contains(snapshot_id, autoescape=True),
        )
        return [str(row[0]) for row in reviews.with_entities(VersionTag.value).all()]


def run_row(tracking: Any, run_id: str) -> RunRow:
    """Return a run, also a deleted one.

    Raises
    ------
    MlflowException
        ``RESOURCE_DOES_NOT_EXIST``, as MLflow's store does.
    """
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag

    with tracking.ManagedSessionMaker() as session:
        named = query_of(tracking, session, SqlRun).filter(SqlRun.run_uuid == run_id)
        row = named.with_entities(SqlRun.run_uuid, SqlRun.user_id, SqlRun.artifact_uri).first()
        tags = session.query(SqlTag.key, SqlTag.value).filter(SqlTag.run_uuid == run_id).all()
    if row is None:
        _missing(f"Run with id={run_id} not found")
    info = RunInfo(run_id=row[0], user_id=row[1], artifact_uri=row[2])
    return RunRow(info=info, data=RunData(tags=_plain(tags)))


def model_row(tracking: Any, model_id: str) -> ModelRow:
    """Return a logged model that is not deleted.

    Raises
    ------
    MlflowException
        ``RESOURCE_DOES_NOT_EXIST``, as MLflow's store does.
    """
    from mlflow.entities import LoggedModelStatus
    from mlflow.store.tracking.dbmodels.models import SqlLoggedModel as Model
    from mlflow.store.tracking.dbmodels.models import SqlLoggedModelTag as Tag

    with tracking.ManagedSessionMaker() as session:
        named = query_of(tracking, session, Model).filter(
            Model.model_id == model_id, Model.lifecycle_stage != "deleted"
        )
        row = named.with_entities(
            Model.model_id, Model.artifact_location, Model.source_run_id, Model.status
        ).first()
        tags = session.query(Tag.tag_key, Tag.tag_value).filter(Tag.model_id == model_id).all()
    if row is None:
        _missing(f"Logged model with ID '{model_id}' not found.")
    return ModelRow(
        model_id=row[0],
        artifact_location=row[1],
        source_run_id=row[2],
        status=str(LoggedModelStatus.from_int(row[3])),
        tags=_plain(tags),
    )


def _missing(message: str) -> NoReturn:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    raise MlflowException(message, error_code=RESOURCE_DOES_NOT_EXIST)


def _plain(rows: Iterable[Any]) -> dict[str, str]:
    return {str(row[0]): str(row[1]) for row in rows}
