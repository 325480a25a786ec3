"""Attacks between two looks of the gate: what changes after it was explained, judged or promoted."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
import tracking_kit
from mlflow.exceptions import MlflowException

import explain_step
from explain_step.server import places, registry_store

if TYPE_CHECKING:
    from gate_kit import Version, World

pytestmark = [pytest.mark.slow, tracking_kit.pickle_free]


def fresh(prefix: str = "between") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a small model."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    mlflow.sklearn.save_model(tracking_kit.fitted(), folder, pip_requirements=tracking_kit.REQUIREMENTS)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def of_a_run(world: World, model_files: dict[str, bytes]) -> Version:
    """Return an explained version without a logged model: its files are a run's own."""
    from gate_kit import Version

    run = world.client.create_run(world.experiment_id).info
    path, name = run.artifact_uri.removeprefix("mlflow-artifacts:/"), fresh()
    for file, content in model_files.items():
        assert world.server.put(f"{path}/model/{file}", content).status_code == 200
    world.registered(name)
    body = {"name": name, "source": f"{run.artifact_uri}/model", "run_id": run.run_id}
    assert world.server.api("POST", "model-versions/create", **body).status_code == 200
    X, y = tracking_kit.rows(60)
    with tracking_kit.current_store(world.server.url, world.experiment_id):
        logged = explain_step.log_explanations(
            f"models:/{name}/1", X, y, run_id=run.run_id, allow_pickle=True
        )
    assert logged.status == "complete", logged.reason
    folder = world.server.artifacts / path
    return Version(name=name, version="1", model_id="", run_id=run.run_id, path=path, folder=folder)


# -- a model that is not finished --------------------------------------------------------------------------


def test_an_explained_model_that_is_not_finished(world: World, model_files: dict[str, bytes]) -> None:
    pending = world.unexplained(fresh(), files=model_files, ready=False)
    X, y = tracking_kit.rows(60)
    with tracking_kit.current_store(world.server.url, world.experiment_id):
        logged = explain_step.log_explanations(f"models:/{pending.name}/1", X, y, allow_pickle=True)
    assert logged.status == "complete", logged.reason
    refused = world.server.alias(pending.name, "1")
    assert refused.status_code == 403
    assert "not READY" in refused.json()["message"]
    with pytest.raises(explain_step.errors.SnapshotError, match="not READY"):
        explain_step.load_model(f"models:/{pending.name}/1", tracking_uri=world.server.url)
    world.client.finalize_logged_model(pending.model_id, "READY")
    assert world.server.alias(pending.name, "1").status_code == 200


def test_an_unfinished_model_that_was_promoted_is_sealed(world: World) -> None:
    pending = world.unexplained(fresh(), ready=False)
    assert world.server.put(f"{pending.path}/model.bin").status_code == 200
    with protecting(world, pending.name):
        assert world.server.put(f"{pending.path}/model.bin").status_code == 403
        assert world.server.delete(f"{pending.path}/model.bin").status_code == 403


# -- versions in a protected registered model ---------------------------------------------------------------


@contextlib.contextmanager
def protecting(world: World, name: str) -> Iterator[None]:
    """Let the policy protect one more registered model."""
    before = world.server.policy.read_text()
    world.server.policy.write_text(before.replace('["prod.*"]', f'["prod.*", "{name}"]'))
    try:
        yield
    finally:
        world.server.policy.write_text(before)


def test_a_version_in_a_protected_model_holds_its_run_and_files(world: World, of_a_run: Version) -> None:
    weights = f"{of_a_run.path}/model/new.bin"
    with protecting(world, of_a_run.name):
        assert world.server.put(weights).status_code == 403
        assert world.server.delete(f"{of_a_run.path}/model").status_code == 403
        refused = world.server.api("POST", "runs/delete", run_id=of_a_run.run_id)
        assert refused.status_code == 403
        assert "Delete that version first" in refused.json()["message"]
    assert world.server.put(f"{of_a_run.path}/other/new.bin").status_code == 200


def test_a_logged_model_in_a_protected_model_is_not_deleted(world: World) -> None:
    version = world.unexplained(fresh())
    with protecting(world, version.name):
        path = f"logged-models/{version.model_id}"
        assert world.server.api("DELETE", path, model_id=version.model_id).status_code == 403
        assert (
            world.server.api("POST", "experiments/delete", experiment_id=world.experiment_id).status_code
            == 403
        )
        body = {"name": version.name, "version": version.version}
        assert world.server.api("DELETE", "model-versions/delete", **body).status_code == 200
        assert world.server.api("DELETE", path, model_id=version.model_id).status_code == 200


# -- experiments inside other things ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "mlflow-artifacts:/{run}/nest",
        "mlflow-artifacts:/{run}",
        "mlflow-artifacts:/{model}/explanations/x",
        "mlflow-artifacts:/x/traces/tr-1/artifacts/nest",
        "mlflow-artifacts:/{run_upper}/nest",
        "mlflow-artifacts:/x%2f{run}/nest",
        "{store}",
        "{store}/deep",
        "{store_path}/deep",
        "{store_path}/../{store_name}",
        "FILE://{store_path}",
    ],
)
def test_an_experiment_inside_the_artifacts_of_another(world: World, place: str) -> None:
    run = f"{world.experiment_id}/{world.good.run_id}/artifacts"
    store = world.server.artifacts
    names = {"run": run, "run_upper": run.upper(), "model": world.good.path, "store": store.as_uri()}
    location = place.format(**names, store_path=store, store_name=store.name)
    answer = world.server.api("POST", "experiments/create", name=fresh(), artifact_location=location)
    assert answer.status_code == 403, answer.text
    assert "artifact location refused" in answer.json()["message"]


def test_an_experiment_in_a_place_of_its_own(world: World, tmp_path: Path) -> None:
    for location in (f"mlflow-artifacts:/{fresh()}", tmp_path.as_uri(), "s3://bucket/x"):
        answer = world.server.api("POST", "experiments/create", name=fresh(), artifact_location=location)
        assert answer.status_code == 200, answer.text


# -- between the decision and the write ---------------------------------------------------------------------


@pytest.fixture
def store(world: World, of_a_run: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Open a copy of the server's registry and artifacts behind the gate, in this process."""
    shutil.copyfile(world.server.folder / "mlflow.db", tmp_path / "mlflow.db")
    shutil.copytree(world.server.artifacts, tmp_path / "artifacts")
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    destination = f"explain-gate+{(tmp_path / 'artifacts').as_uri()}"
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", destination)
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    monkeypatch.setenv("EXPLAIN_STEP_POLICY", str(world.server.policy))
    opened = registry_store.open_store(f"explain-gate+{database}", database)
    yield opened
    opened.judge.tracking().engine.dispose()
    opened.engine.dispose()


@contextlib.contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any], *, after: int) -> Iterator[None]:
    """Let somebody else act once, when the gate has opened a place for the given number of times."""
    opened, real = [], places.open_at

    def open_at(*args: Any, **kwargs: Any) -> Any:
        opened.append(real(*args, **kwargs))
        if len(opened) == after:
            act()
        return opened[-1]

    with monkeypatch.context() as patch:
        patch.setattr("explain_step.server.places.open_at", open_at)
        yield
    assert len(opened) >= after


def test_another_model_gets_the_name_while_it_is_judged(
    store: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = world.good, world.unexplained(fresh())
    name = fresh()

    def version_of(model_id: str) -> None:
        store.create_registered_model(name)
        location = store.judge.tracking().get_logged_model(good.model_id).artifact_location
        place = location.replace(good.model_id, model_id)
        store.create_model_version(name, place, run_id=good.run_id, tags=[])

    def swap() -> None:
        store.delete_registered_model(name)
        version_of(bad.model_id)

    for change, args in (
        (store.set_registered_model_alias, ("champion", "1")),
        (store.transition_model_version_stage, ("1", "Production", False)),
    ):
        version_of(good.model_id)
        with meanwhile(monkeypatch, swap, after=2), pytest.raises(MlflowException, match="was judged"):
            change(name, *args)
        assert store.get_registered_model(name).aliases == {}
        assert store.get_model_version(name, "1").current_stage == "None"
        store.delete_registered_model(name)


def test_files_of_a_run_that_change_while_they_are_judged(
    store: Any, of_a_run: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = of_a_run.name
    MLmodel = tmp_path / "artifacts" / of_a_run.path / "model" / "MLmodel"
    before = MLmodel.read_bytes()

    def change() -> None:
        MLmodel.write_bytes(before + b"\n")

    with meanwhile(monkeypatch, change, after=3), pytest.raises(MlflowException, match="GATE004"):
        store.set_registered_model_alias(name, "champion", "1")
    assert store.get_registered_model(name).aliases == {}
    MLmodel.write_bytes(before)
    store.create_registered_model("prod.between")
    with meanwhile(monkeypatch, change, after=3), pytest.raises(MlflowException, match="GATE004"):
        store.create_model_version("prod.between", f"models:/{name}/1", run_id=of_a_run.run_id)
    assert store.search_model_versions("name = 'prod.between'") == []
    MLmodel.write_bytes(before)
    store.set_registered_model_alias(name, "champion", "1")
    assert store.get_registered_model(name).aliases == {"champion": 1}
