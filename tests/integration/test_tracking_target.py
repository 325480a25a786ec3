"""Which run, logged model and versions an explanation belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
from tracking_kit import Store, fitted, log, rows

import explain_step
from explain_step.errors import InvalidInput, SnapshotError
from explain_step.tracking import resolve


def test_active_run_and_its_newest_model(active_store: Store) -> None:
    with mlflow.start_run() as run:
        log(fitted(), name="first")
        newest = log(fitted(seed=1), name="second", registered="mortgage")
        target = resolve()
        assert mlflow.active_run().info.status == "RUNNING"
    assert (target.run_id, target.model_id) == (run.info.run_id, newest.model_id)
    assert target.versions == (("mortgage", "1"),)
    assert target.model_uri == f"models:/{newest.model_id}"
    assert "newest" in str(target.note)
    assert "'second'" in str(target.note)
    assert target.evidence_location == target.model_location


def test_a_run_without_a_model_carries_the_evidence_itself(store: Store) -> None:
    run = store.client.create_run(store.experiment_id)
    target = resolve(run_id=run.info.run_id, tracking_uri=store.uri)
    assert target.model_id is None
    assert target.versions == ()
    assert target.evidence_uri == f"runs:/{run.info.run_id}"
    assert target.evidence_location == run.info.artifact_uri


def test_every_form_of_uri_names_the_same_model(active_store: Store) -> None:
    client = active_store.client
    with mlflow.start_run() as run:
        info = log(fitted(), registered="mortgage")
    client.set_registered_model_alias("mortgage", "champion", "1")
    run_id = run.info.run_id
    found = [
        resolve(model_uri=uri, tracking_uri=active_store.uri)
        for uri in (
            "models:/mortgage/1",
            "models:/mortgage@champion",
            f"models:/{info.model_id}",
            f"runs:/{run_id}/model",
        )
    ]
    found.append(resolve(run_id=run_id, model_uri="model", tracking_uri=active_store.uri))
    assert {t.model_id for t in found} == {info.model_id}
    assert {t.run_id for t in found} == {run_id}
    assert {t.versions for t in found} == {(("mortgage", "1"),)}


def test_the_registry_does_not_keep_the_model_id_and_copies_are_followed(active_store: Store) -> None:
    client = active_store.client
    with mlflow.start_run():
        info = log(fitted(), registered="mortgage")
    client.copy_model_version("models:/mortgage/1", "staging")
    client.copy_model_version("models:/staging/1", "prod mortgage")
    assert client.get_model_version("mortgage", "1").model_id is None  # why the source has to be read
    target = resolve(model_uri="models:/prod mortgage/1", tracking_uri=active_store.uri)
    assert target.model_id == info.model_id
    assert target.versions[0] == ("prod mortgage", "1")
    assert set(target.versions) == {("mortgage", "1"), ("staging", "1"), ("prod mortgage", "1")}


def test_an_active_run_of_another_server_is_not_taken(active_store: Store, tmp_path: Path) -> None:
    with mlflow.start_run(), pytest.raises(InvalidInput, match="no MLflow run is active"):
        resolve(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=5")


def test_a_deleted_run_leaves_the_model(active_store: Store) -> None:
    with mlflow.start_run() as run:
        info = log(fitted(), registered="mortgage")
    active_store.client.delete_run(run.info.run_id)
    target = resolve(model_uri="models:/mortgage/1", tracking_uri=active_store.uri)
    assert (target.run_id, target.model_id) == (None, info.model_id)
    assert "deleted" in str(target.note)


def test_a_model_that_is_not_ready_is_not_taken(store: Store) -> None:
    run = store.client.create_run(store.experiment_id)
    store.client.create_logged_model(store.experiment_id, name="model", source_run_id=run.info.run_id)
    assert resolve(run_id=run.info.run_id, tracking_uri=store.uri).model_id is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "with mlflow.start_run"),
        ({"run_id": "0" * 32}, "names nothing"),
        ({"model_uri": "models:/nobody/1"}, "names nothing"),
        ({"model_uri": "models:/nobody@champion"}, "names nothing"),
        ({"model_uri": "models:/m-" + "0" * 32}, "names nothing"),
        ({"model_uri": "models:/mortgage/latest/x"}, "must be models:/name/3"),
        ({"model_uri": "s3://bucket/model"}, "must be models:/name/3"),
    ],
)
def test_what_names_nothing_is_said_with_the_remedy(
    store: Store, arguments: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        resolve(**arguments, tracking_uri=store.uri)


def test_no_global_uri_is_set_and_no_store_appears_in_the_working_directory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    run = store.client.create_run(store.experiment_id)
    resolve(run_id=run.info.run_id, tracking_uri=store.uri)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert mlflow.tracking._tracking_service.utils._tracking_uri is None


def test_a_model_named_by_its_uri_is_explained_and_nothing_is_logged(
    active_store: Store, tmp_path: Path
) -> None:
    X, y = rows()
    with mlflow.start_run() as run:
        log(fitted(), name="pickled", registered="risky", serialization_format="pickle")
        log(fitted(), registered="mortgage")

    def known() -> list[dict[str, Any]]:
        version = active_store.client.get_model_version("mortgage", "1")
        return [active_store.client.get_run(run.info.run_id).to_dictionary(), dict(version), version.tags]

    before = known()
    shot = explain_step.explain("models:/mortgage/1", X, y, directory=tmp_path / "here")
    assert (shot.model.name, shot.model.version, shot.model.binding) == ("mortgage", "1", "verified")
    assert known() == before
    logged = explain_step.log_explanations("models:/mortgage/1", X, y, on_error="raise")
    assert logged.id == shot.id
    with pytest.raises(SnapshotError, match="allow_pickle"):
        explain_step.explain("models:/risky/1", X, y)
    allowed = explain_step.explain("models:/risky/1", X, y, allow_pickle=True, directory=tmp_path / "risky")
    assert allowed.status == shot.status
    with pytest.raises(InvalidInput, match="models:/"):
        explain_step.explain("mortgage", X, y)


def test_a_run_with_two_models_is_read_by_the_one_that_it_shows(active_store: Store) -> None:
    """Explained in another order than logged: each name gives the explanation of its own model, and all verify."""
    X, y = rows()
    given = {"task": "binary", "max_rows": 40}
    with mlflow.start_run() as run:
        made = {name: log(fitted(seed=i), name=name) for i, name in enumerate(("first", "second"))}
        for i, name in ((1, "second"), (0, "first")):
            uri = f"models:/{made[name].model_id}"
            explain_step.log_explanations(fitted(seed=i), X, y, model_uri=uri, **given)
    shown = f"runs:/{run.info.run_id}"
    sources = {shown: "first", f"{shown}/first": "first", f"{shown}/second": "second"}
    for source, name in sources.items():
        assert explain_step.read(source).model.model_id == made[name].model_id
        assert [f.code for f in explain_step.verify(source)] == ["VER000"], source


def test_a_run_that_explains_the_model_of_another_is_read_by_it(active_store: Store) -> None:
    """A job that explains what was trained before; a run whose tag merely names that explanation does not verify."""
    X, y = rows()
    with mlflow.start_run() as training:
        info = log(fitted())
    uri = f"models:/{info.model_id}"
    with mlflow.start_run() as job:
        explain_step.log_explanations(fitted(), X, y, model_uri=uri, task="binary", max_rows=40)
    with mlflow.start_run() as other:
        tags = mlflow.get_run(job.info.run_id).data.tags
        mlflow.set_tag("explain_step.evidence", tags["explain_step.evidence"])
    for run in (job, training):
        source = f"runs:/{run.info.run_id}"
        assert explain_step.read(source).model.model_id == info.model_id
        assert [f.code for f in explain_step.verify(source)] == ["VER000"], source
    assert [f.code for f in explain_step.verify(f"runs:/{other.info.run_id}")] == ["VER012"]
