"""`explain_step.load_model`: nothing is loaded before its bytes are held against the evidence."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from audit_kit import POLICY, Logged, explain, sql, train
from tracking_kit import Store, current_store, fitted, log, rows

import explain_step
from explain_step.errors import InvalidInput, SnapshotError
from explain_step.tracking import checked, proven

MARK = "was-run"


class Payload:
    """Code in a pickle: leaves a file where it is run."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.place),)


def weights(made: Logged) -> Path:
    return next(made.place.glob("model.*"))


def test_a_proven_model_is_loaded_by_every_name(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    active_store.client.set_registered_model_alias("mortgage", "champion", "1")
    X, _ = rows()
    expected = fitted().predict_proba(X)
    uris = ("models:/mortgage/1", "models:/mortgage@champion", made.uri, f"runs:/{made.run_id}/model")
    for uri in uris:
        model = explain_step.load_model(uri, tracking_uri=active_store.uri)
        np.testing.assert_array_equal(model.predict_proba(X), expected)
    wrapped = explain_step.load_model("models:/mortgage/1", flavor="pyfunc", policy=POLICY)
    np.testing.assert_array_equal(wrapped.predict(X), fitted().predict(X))


def test_nothing_is_left_behind(active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = train(active_store, tmp_path)
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    explain_step.load_model(made.uri)
    assert not list(private.glob("explain_step_*"))
    wrapped = explain_step.load_model(made.uri, flavor="pyfunc")
    assert len(list(private.glob("explain_step_model_*"))) == 1  # it may read its files later
    del wrapped
    assert not list(private.glob("explain_step_*"))
    weights(made).write_bytes(b"changed")
    with pytest.raises(SnapshotError):
        explain_step.load_model(made.uri)
    assert not list(private.glob("explain_step_*"))


def test_an_unexplained_model_is_refused_or_warned_of(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage", explained=False)
    with pytest.raises(SnapshotError, match=r"not proven and was not loaded: GATE002 .* explain-step run"):
        explain_step.load_model("models:/mortgage/1")


def test_warn_loads_formats_that_hold_data_only(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage", explained=False)
    with pytest.warns(UserWarning, match="loaded without proof: GATE002"):
        model = explain_step.load_model("models:/mortgage/1", on_unproven="warn")
    assert model.coef_.shape == (1, 3)


def test_changed_weights_are_refused(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    other = train(active_store, tmp_path, explained=False, C=1e-6)
    shutil.copyfile(weights(other), weights(made))
    for uri in ("models:/mortgage/1", made.uri):
        with pytest.raises(SnapshotError, match="GATE004"):
            explain_step.load_model(uri)


def test_swapped_and_copied_evidence_is_refused(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path)
    other = train(active_store, tmp_path, registered="mortgage", explained=False, C=1e-6)
    shutil.copytree(made.snapshot.parent, other.place / "explanations")
    for uri in ("models:/mortgage/1", other.uri):
        with pytest.raises(SnapshotError, match=r"GATE00[45]"):
            explain_step.load_model(uri)


def test_changed_evidence_is_refused(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    (made.snapshot / "card.md").write_text("# other", encoding="utf-8")
    with pytest.raises(SnapshotError, match="GATE003 the snapshot does not verify: VER"):
        explain_step.load_model("models:/mortgage/1")


def test_a_location_that_was_changed_in_the_database_is_refused(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    evil = tmp_path / "evil"
    shutil.copytree(made.place, evil)
    sql(active_store, "update model_versions set storage_location = ?", evil.as_uri())
    with pytest.raises(SnapshotError, match="GATE001"):
        explain_step.load_model("models:/mortgage/1")


@pytest.mark.parametrize("on_unproven", ["raise", "warn"])
@pytest.mark.filterwarnings("ignore:explain_step. .* is loaded without proof:UserWarning")
def test_a_payload_is_not_run(active_store: Store, tmp_path: Path, on_unproven: str) -> None:
    with mlflow.start_run() as run:
        info = log(fitted(), registered="mortgage", serialization_format="cloudpickle")
        explain(tmp_path, run_id=run.info.run_id)
    place = Path(
        active_store.client.get_logged_model(info.model_id).artifact_location.removeprefix("file://")
    )
    assert explain_step.load_model("models:/mortgage/1").coef_.shape == (1, 3)  # a proven pickle is loaded
    (place / "model.pkl").write_bytes(pickle.dumps(Payload(tmp_path / MARK)))
    with pytest.raises(SnapshotError, match="not loaded"):
        explain_step.load_model("models:/mortgage/1", on_unproven=on_unproven)  # type: ignore[arg-type]
    assert not (tmp_path / MARK).exists()


@pytest.mark.filterwarnings("ignore:explain_step. .* is loaded without proof:UserWarning")
def test_a_foreign_pyfunc_loader_is_not_run_unproven(active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage", explained=False)
    file = made.place / "MLmodel"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("loader_module: mlflow.sklearn", "loader_module: antigravity"), "utf-8")
    with pytest.raises(SnapshotError, match="its pyfunc is loaded by antigravity"):
        explain_step.load_model("models:/mortgage/1", on_unproven="warn", flavor="pyfunc")


def test_a_writer_who_comes_between_changes_nothing(
    active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    decide = proven.decide

    def swap(*args: object, **settings: object) -> object:
        weights(made).write_bytes(b"changed between the decision and the load")
        return decide(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(proven, "decide", swap)
    X, _ = rows()
    model = explain_step.load_model("models:/mortgage/1")
    np.testing.assert_array_equal(model.predict_proba(X), fitted().predict_proba(X))


def test_the_whole_policy_holds_when_it_is_given(active_store: Store, tmp_path: Path) -> None:
    train(active_store, tmp_path, registered="mortgage")
    with pytest.raises(SnapshotError, match="degraded"):
        explain_step.load_model(
            "models:/mortgage/1", policy={**POLICY, "require": {**POLICY["require"], "status": ["complete"]}}
        )


def test_wrong_arguments(active_store: Store) -> None:
    with pytest.raises(InvalidInput, match="on_unproven must be 'raise' or 'warn'"):
        explain_step.load_model("models:/mortgage/1", on_unproven="ignore")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="names nothing"):
        explain_step.load_model("models:/nothing/1")


@pytest.mark.slow
@pytest.mark.oldest
def test_behind_a_server(server_store: Store, tmp_path: Path) -> None:
    with current_store(server_store.uri, server_store.experiment_id):
        with mlflow.start_run() as run:
            log(fitted(), registered="served")
            explain(tmp_path, run_id=run.info.run_id)
        assert explain_step.load_model("models:/served/1").coef_.shape == (1, 3)


def test_explaining_by_uri_runs_no_pickle_that_nothing_proves(active_store: Store, tmp_path: Path) -> None:
    X, y = rows(12)
    with mlflow.start_run():
        info = log(fitted(), registered="mortgage", serialization_format="pickle")
    place = Path(
        active_store.client.get_logged_model(info.model_id).artifact_location.removeprefix("file://")
    )
    file = next(place.glob("model.*"))
    whole = file.read_bytes()
    file.write_bytes(pickle.dumps(Payload(tmp_path / MARK)))
    with pytest.raises(SnapshotError, match=r"runs code when it is loaded.*--allow-pickle"):
        explain_step.log_explanations("models:/mortgage/1", X, y, on_error="raise")
    assert not (tmp_path / MARK).exists()
    marked = explain_step.log_explanations("models:/mortgage/1", X, y)
    assert (marked.status, marked.snapshot) == ("failed", None)
    file.write_bytes(whole)
    options = {"top_features": 1, "on_error": "raise"}
    trusted = explain_step.log_explanations("models:/mortgage/1", X, y, allow_pickle=True, **options)
    # now a snapshot that verifies holds the digest of these bytes
    again = explain_step.log_explanations("models:/mortgage/1", X, y, seed=1, **options)
    assert again.id != trusted.id
    file.write_bytes(pickle.dumps(Payload(tmp_path / MARK)))
    with pytest.raises(SnapshotError, match="runs code when it is loaded"):
        explain_step.log_explanations("models:/mortgage/1", X, y, seed=2, **options)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("looked", ["unsafe", "model_problem"])
def test_a_writer_who_comes_between_look_and_load_changes_nothing(
    active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked: str
) -> None:
    """The description says skops when it is looked at, and pickle when it is loaded."""
    X, y = rows(12)
    made = train(active_store, tmp_path, registered="mortgage", explained=False)
    text = (made.place / "MLmodel").read_text("utf-8")

    def swap(look: Any) -> Any:
        def after(*arguments: Any) -> Any:
            found = look(*arguments)
            (made.place / "MLmodel").write_text(text.replace("format: skops", "format: pickle"), "utf-8")
            weights(made).write_bytes(pickle.dumps(Payload(tmp_path / MARK)))
            return found

        return after

    for module in (checked, import_module("explain_step.tracking.binding")):
        monkeypatch.setattr(module, looked, swap(getattr(module, looked)))
    logged = explain_step.log_explanations("models:/mortgage/1", X, y, top_features=1)
    assert not (tmp_path / MARK).exists()
    assert logged.snapshot is not None
    assert "runs code" in logged.snapshot.model.binding_note  # the store holds a pickle by then


@pytest.mark.parametrize("what", ["explanations", "snapshot", "manifest.json", "tables"])
def test_a_link_among_the_evidence_is_refused_by_its_name(
    active_store: Store, tmp_path: Path, what: str
) -> None:
    made = train(active_store, tmp_path, registered="mortgage")
    assert made.snapshot is not None
    places = {"explanations": made.place / "explanations", "snapshot": made.snapshot}
    place = places.get(what, made.snapshot / what)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    name = place.relative_to(made.place).as_posix()
    with pytest.raises(SnapshotError, match=f"'{name}' at .* is a symbolic link"):
        explain_step.load_model("models:/mortgage/1", on_unproven="warn")
    decision = explain_step.gate("models:/mortgage/1", POLICY)
    assert not decision.allowed
    assert place.name in decision.summary
    place.unlink()
    place.symlink_to(tmp_path / "nowhere")
    assert explain_step.audit(registered_models="mortgage")["status"].tolist() == ["undecided"]
