"""Attacks between two looks of the gate: what changes after it was explained, judged or promoted."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
import tracking_kit
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException

import explain_step
from explain_step.server import (
    artifact_repository,
    places,
    protection,
    racing,
    registry_store,
    tracking_store,
)
from explain_step.server.seal import Sealer

if TYPE_CHECKING:
    from gate_kit import Version, World

pytestmark = [pytest.mark.slow, tracking_kit.server_gate]


def fresh(prefix: str = "between") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="module")
def own(world: World) -> World:
    """Return an explained version on which nothing rests, whatever other files have promoted."""
    from gate_kit import explained_in

    return explained_in(fresh(), world.server, world.client, name=fresh())


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
        "explain-gate+{store}/deep",
        "mlflow-artifacts:/1/models/{id}",
        "mlflow-artifacts:/1/models/{id}/models",
    ],
)
def test_an_experiment_inside_the_artifacts_of_another(world: World, place: str) -> None:
    run = f"{world.experiment_id}/{world.good.run_id}/artifacts"
    store = world.server.artifacts
    names = {"run": run, "run_upper": run.upper(), "model": world.good.path, "store": store.as_uri()}
    names["id"] = world.good.model_id
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
def store(
    world: World, own: World, of_a_run: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
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

    plain = type(store).__mro__[2]
    for change, args in (
        ("set_registered_model_alias", ("champion", "1")),
        ("transition_model_version_stage", ("1", "Production", False)),
    ):

        def swap_and_promote(change: str = change, args: Any = args) -> None:
            """Let another request be on its way, which takes it back later: that is no state to return to."""
            swap()
            getattr(plain, change)(store, name, *args)

        for act in (swap, swap_and_promote):
            version_of(good.model_id)
            with meanwhile(monkeypatch, act, after=2), pytest.raises(MlflowException, match="was judged"):
                getattr(store, change)(name, *args)
            assert store.get_registered_model(name).aliases == {}
            assert store.get_model_version(name, "1").current_stage == "None"
            store.delete_registered_model(name)


def test_a_stage_move_that_is_taken_back_brings_the_archived_version_back(
    store: Any, of_a_run: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = of_a_run.name
    first = store.get_model_version(name, "1")
    second = store.create_model_version(name, first.source, run_id=first.run_id, tags=[])
    store.transition_model_version_stage(name, "1", "Production", False)
    MLmodel = tmp_path / "artifacts" / of_a_run.path / "model" / "MLmodel"

    def change() -> None:
        MLmodel.write_bytes(MLmodel.read_bytes() + b"\n")

    with meanwhile(monkeypatch, change, after=3), pytest.raises(MlflowException, match="GATE004"):
        store.transition_model_version_stage(name, second.version, "Production", True)
    stages = {str(v): store.get_model_version(name, v).current_stage for v in ("1", second.version)}
    assert stages == {"1": "Production", str(second.version): "None"}


def test_an_alias_that_is_taken_back_points_to_the_champion_before(
    store: Any, of_a_run: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to one that would not be promoted now, and so with the other aliases: only what was asked is taken back."""
    name = of_a_run.name
    first = store.get_model_version(name, "1")
    second = store.create_model_version(name, first.source, run_id=first.run_id, tags=[])
    for alias in ("champion", "live-eu"):
        store.set_registered_model_alias(name, alias, "1")
    MLmodel = tmp_path / "artifacts" / of_a_run.path / "model" / "MLmodel"

    def change() -> None:
        MLmodel.write_bytes(MLmodel.read_bytes() + b"\n")

    with meanwhile(monkeypatch, change, after=3), pytest.raises(MlflowException, match="GATE004"):
        store.set_registered_model_alias(name, "champion", second.version)
    assert store.get_registered_model(name).aliases == {"champion": 1, "live-eu": 1}


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


# -- two requests at once -----------------------------------------------------------------------------------


@contextlib.contextmanager
def right_after(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, act: Callable[[], Any]
) -> Iterator[None]:
    """Let somebody else act once, right after a function of the gate has been asked for the first time."""
    real, asked = getattr(module, name), []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        answer = real(*args, **kwargs)
        asked.append(answer)
        if len(asked) == 1:
            act()
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(module, name, wrapped)
        yield
    assert asked


@pytest.fixture
def guarded(store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the gate before the tracking store of ``store`` too, as a server does."""
    monkeypatch.setattr("explain_step.server.client.registry_of_server", lambda: store)
    return tracking_store.guarded(store.judge.tracking())


def test_a_promotion_between_the_look_and_the_deletion_keeps_what_it_rests_on(
    store: Any, guarded: Any, own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, name = own.good, own.good.name
    promote = lambda: store.set_registered_model_alias(name, "champion", "1")  # noqa: E731
    for module, look, delete in (
        (registry_store, "holders_of_version", lambda: store.delete_model_version(name, "1")),
        (registry_store, "holders_of_name", lambda: store.delete_registered_model(name)),
        (registry_store, "holders_of_name", lambda: store.rename_registered_model(name, fresh())),
        (tracking_store, "holders_of_run", lambda: guarded.delete_run(good.run_id)),
        (tracking_store, "holders_of_model", lambda: guarded.delete_logged_model(good.model_id)),
        (protection, "protected_versions", lambda: guarded.delete_experiment(own.experiment_id)),
    ):
        with (
            right_after(monkeypatch, module, look, promote),
            pytest.raises(MlflowException, match="champion"),
        ):
            delete()
        assert store.get_registered_model(name).aliases == {"champion": 1}
        assert "explain_step.deleting" not in store.get_registered_model(name).tags
        assert "explain_step.deleting" not in store.get_model_version(name, "1").tags
        promote()  # everything it rests on is there, and nothing is marked
        store.delete_registered_model_alias(name, "champion")


@pytest.fixture(scope="module")
def unproven(own: World) -> Version:
    """Return a version that nobody has explained; ``store`` is a copy of what is there before."""
    return own.unexplained(fresh())


def test_a_promotion_of_a_version_that_took_the_name_does_not_outlive_the_rename(
    store: Any, unproven: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alias was judged on another version of the name, and is taken back while the name is on its way."""
    plain, bad = type(store).__mro__[2], unproven.name
    for promote in (
        lambda: plain.set_registered_model_alias(store, bad, "champion", "1"),
        lambda: plain.transition_model_version_stage(store, bad, "1", "Production", False),
    ):
        with (
            right_after(monkeypatch, registry_store, "holders_of_name", promote),
            pytest.raises(MlflowException, match="rename refused"),
        ):
            store.rename_registered_model(bad, fresh())
        assert store.get_registered_model(bad).aliases == {}
        assert store.get_model_version(bad, "1").current_stage == "None"
    other = fresh()
    store.rename_registered_model(bad, other)  # nothing is in the way of a later one
    store.rename_registered_model(other, bad)


def test_a_version_that_cannot_be_judged_is_released_and_the_name_comes_back(
    store: Any, own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = own.good.name

    def promote() -> None:
        store.set_registered_model_alias(name, "champion", "1")
        monkeypatch.setattr(store, "_require", lambda *_: 1 / 0)

    with right_after(monkeypatch, registry_store, "holders_of_name", promote), pytest.raises(MlflowException):
        store.rename_registered_model(name, fresh())
    assert store.get_registered_model(name).aliases == {}


def test_a_deletion_that_has_begun_is_seen_by_a_promotion(
    store: Any, guarded: Any, own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, good, name = type(store).__mro__[2], own.good, own.good.name

    def mark(version: str | None) -> None:
        with (
            contextlib.suppress(KeyboardInterrupt),
            racing.marked(_Plain(store, plain, stop=True), name, version),
        ):
            raise KeyboardInterrupt

    for begin, match in (
        (lambda: mark("1"), "being deleted"),
        (lambda: mark(None), "being deleted"),
        (lambda: guarded.delete_run(good.run_id), "which logged it, is deleted"),
    ):
        with meanwhile(monkeypatch, begin, after=2), pytest.raises(MlflowException, match=match):
            store.set_registered_model_alias(name, "champion", "1")
        assert store.get_registered_model(name).aliases == {}
        guarded.restore_run(good.run_id)
        plain.delete_model_version_tag(store, name, "1", racing.DELETING_TAG)
        plain.delete_registered_model_tag(store, name, racing.DELETING_TAG)
    with (
        right_after(monkeypatch, registry_store, "version_behind", lambda: guarded.delete_run(good.run_id)),
        pytest.raises(
            MlflowException, match="which logged it, is deleted"
        ),  # it was there when it was judged
    ):
        store.set_registered_model_alias(name, "champion", "1")
    assert store.get_registered_model(name).aliases == {}
    guarded.restore_run(good.run_id)
    for tag in ("explain_step.deleting", "EXPLAIN_STEP.deleting"):  # nobody else marks
        with pytest.raises(MlflowException, match="refused"):
            store.set_model_version_tag(name, "1", ModelVersionTag(tag, "2026-01-01T00:00:00+00:00"))
    store.set_registered_model_alias(name, "champion", "1")


class _Plain:
    """MLflow's own methods of a guarded store; ``stop``: the mark stays, as where a server ends."""

    def __init__(self, store: Any, base: type, *, stop: bool) -> None:
        self._store, self._base, self._stop = store, base, stop

    def __getattr__(self, name: str) -> Any:
        if self._stop and name.startswith("delete_"):
            return lambda *args: None
        return lambda *args: getattr(self._base, name)(self._store, *args)


def test_an_experiment_is_held_by_the_run_or_the_model_of_a_protected_version(
    store: Any, guarded: Any, world: World, tmp_path: Path
) -> None:
    """A logged model that MLflow has removed for good holds nothing, and is in nobody's way."""
    first, second, free = (guarded.create_experiment(fresh()) for _ in range(3))
    run = guarded.create_run(first, "ann", 0, [], "trained").info
    model = guarded.create_logged_model(second)
    of_run, of_model = fresh("run"), fresh("model")
    for name, source, run_id in (
        (of_run, f"{run.artifact_uri}/model", run.run_id),
        (of_model, model.artifact_location, None),
    ):
        store.create_registered_model(name)
        store.create_model_version(name, source, run_id)
    for name, experiment in ((of_run, first), (of_model, second)):
        with protecting(world, name):
            with pytest.raises(MlflowException, match="Delete that version first"):
                guarded.delete_experiment(experiment)
            guarded.delete_experiment(free)
            guarded.restore_experiment(free)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as direct, direct:
        direct.execute("DELETE FROM logged_models WHERE model_id = ?", (model.model_id,))
    with protecting(world, of_model):
        guarded.delete_experiment(free)


@pytest.mark.parametrize("owner", ["model", "run"])
def test_a_file_that_is_published_after_the_promotion_is_taken_away(
    store: Any,
    guarded: Any,
    own: World,
    of_a_run: Version,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: str,
) -> None:
    """A large upload to a bucket takes long: what it replaces could be judged meanwhile."""
    good = own.good if owner == "model" else of_a_run
    name, path = good.name, good.path if owner == "model" else f"{good.path}/model"
    stored = tmp_path / "artifacts" / path / "MLmodel"
    evil = tmp_path / "MLmodel"
    evil.write_bytes(stored.read_bytes() + b"# other\n")
    repository = artifact_repository.open_repository(f"explain-gate+{(tmp_path / 'artifacts').as_uri()}")
    write = repository.inner.log_artifact

    def slow(local_file: str, artifact_path: str | None = None) -> None:
        status("READY")
        store.set_registered_model_alias(name, "champion", "1")
        write(local_file, artifact_path)

    def status(value: str) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
            number = {"PENDING": 1, "READY": 2}[value]
            database.execute(
                "update logged_models set status = ? where model_id = ?", (number, good.model_id)
            )

    status("PENDING")
    monkeypatch.setattr(repository.inner, "log_artifact", slow)
    with pytest.raises(MlflowException, match="taken away"):
        repository.log_artifact(str(evil), path)
    assert not stored.exists()
    with pytest.raises(MlflowException, match="GATE00"):
        store.set_registered_model_alias(name, "champion", "1")


# -- what no route of the server asks for -------------------------------------------------------------------


@pytest.fixture
def repository(store: Any, guarded: Any, tmp_path: Path) -> Any:
    """Return the guarded repository of the copied artifacts."""
    return artifact_repository.open_repository(f"explain-gate+{(tmp_path / 'artifacts').as_uri()}")


def test_a_folder_is_judged_file_by_file(
    repository: Any, own: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own client uploads folders, also inside the server."""
    run, model = own.client.create_run(own.experiment_id).info.artifact_uri, own.good.path
    free = f"{run.removeprefix('mlflow-artifacts:/')}/kept"
    folder, stored = tmp_path / "folder", tmp_path / "artifacts"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("x")
    repository.log_artifacts(str(folder), free)
    assert (stored / free / "deep" / "a.txt").read_text() == "x"
    for place in (model, f"{model}/explanations/{own.good.snapshot_id}"):
        with pytest.raises(MlflowException, match="write refused"):
            repository.log_artifacts(str(folder), place)
        assert not (stored / place / "deep").exists()
    (folder / "explanations" / "decisions").mkdir(parents=True)
    (folder / "explanations" / "decisions" / "note.json").write_text("{}")
    with pytest.raises(MlflowException, match="named after its time and digest"):
        repository.log_artifacts(str(folder), f"{free}/again")
    assert not (stored / free / "again").exists()
    shutil.rmtree(folder / "explanations")
    monkeypatch.setattr(Sealer, "overtaken", lambda self, path: f"{path} is proven")
    with pytest.raises(MlflowException, match="taken away"):
        repository.log_artifacts(str(folder), free)
    assert not (stored / free / "deep" / "a.txt").exists()


def test_what_a_repository_does_by_itself_or_newly_is_refused(repository: Any, own: World) -> None:
    with pytest.raises(MlflowException, match="uploads go through this server"):
        repository.create_presigned_upload_url(f"{own.good.path}/new.bin")

    class Newer:
        def publish_everything(self) -> str:
            return "published"

    assert artifact_repository.unclassified(Newer) == ["publish_everything"]
    type(repository).publish_everything = artifact_repository._refusing("publish_everything")
    with pytest.raises(MlflowException, match="does not know publish_everything"):
        repository.publish_everything()


def test_files_of_a_run_that_is_gone_are_held_by_its_versions(
    store: Any, repository: Any, of_a_run: Version, tmp_path: Path
) -> None:
    """A run that MLflow has removed, while a version that was promoted has its files."""
    path, evil = f"{of_a_run.path}/model", tmp_path / "new.bin"
    evil.write_bytes(b"x")
    store.set_registered_model_alias(of_a_run.name, "champion", "1")
    for lost in (False, True):
        if lost:
            with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as direct, direct:
                direct.execute("DELETE FROM runs WHERE run_uuid = ?", (of_a_run.run_id,))
        for act in (
            lambda: repository.log_artifact(str(evil), path),
            lambda: repository.delete_artifacts(path),
        ):
            with pytest.raises(MlflowException, match="has the protected alias 'champion'"):
                act()
    store.delete_registered_model_alias(of_a_run.name, "champion")
    repository.log_artifact(str(evil), path)
