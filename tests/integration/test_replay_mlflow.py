"""Replay and export of a version in MLflow: the model is found, digested, and loaded only then."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestClassifier
from tracking_kit import fitted, log, rows, tree

import explain_step
from explain_step.cli import invoke
from explain_step.exporting import export
from explain_step.snapshot.export import bundle

pytestmark = [pytest.mark.slow, pytest.mark.oldest]


@pytest.fixture
def version(active_store, tmp_path) -> tuple[str, Path]:
    """Return the URI of an explained version, logged as a pickle, and the folder of its model."""
    X, y = rows()
    model = RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, y)
    with mlflow.start_run():
        info = log(model, registered="mortgage", serialization_format="cloudpickle")
        logged = explain_step.log_explanations(model, X, y, top_features=1, on_error="raise")
    assert logged.snapshot is not None
    X.assign(deny=y).to_parquet(tmp_path / "rows.parquet")
    place = MlflowClient().get_logged_model(info.model_id).artifact_location
    return "models:/mortgage/1", Path(place.removeprefix("file://"))


def test_the_bound_model_is_found_and_replays(version, tmp_path, capsys) -> None:
    uri, _ = version
    arguments = ["replay", uri, "--data", str(tmp_path / "rows.parquet"), "--no-figures", "--json"]
    assert invoke(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["verdict"] in ("identical", "within_tolerance")
    assert record["replayed_id"] == record["snapshot_id"]
    assert record["notes"] == []
    assert invoke(arguments[:-1]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_changed_pickle_is_never_loaded(version, tmp_path) -> None:
    uri, folder = version
    snapshot = explain_step.read(uri).path
    copy = tmp_path / "model"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("explanations"))
    trap = tmp_path / "trap"
    (copy / "model.pkl").write_bytes(
        f"cpathlib\nPath\n(S'{trap}'\ntRp0\ncos\nmkdir\n(S'{trap}'\ntR.".encode()
    )
    found = explain_step.replay(snapshot, data=str(tmp_path / "rows.parquet"), model=str(copy), figures=False)
    assert found.verdict == "not_replayable"
    assert "do not have the recorded digest" in found.reason
    assert not trap.exists()
    (folder / "model.pkl").write_bytes((copy / "model.pkl").read_bytes())
    assert invoke(["replay", uri, "--data", str(tmp_path / "rows.parquet"), "--no-figures"]) == 3
    assert not trap.exists()


def test_other_files_in_a_safe_format_are_named(active_store, tmp_path) -> None:
    X, y = rows()
    with mlflow.start_run():
        log(fitted(), serialization_format="skops")
        logged = explain_step.log_explanations(
            fitted(), X, y, output="margin", top_features=1, on_error="raise"
        )
    mlflow.sklearn.save_model(
        fitted(C=0.01),
        str(tmp_path / "other"),
        serialization_format="skops",
        pip_requirements=["scikit-learn"],
    )
    found = explain_step.replay(logged.snapshot.path, data=X, y=y, model=tmp_path / "other", figures=False)
    assert found.verdict == "different"
    assert {d.input for d in found.inputs} - {"code"} == {"model"}
    assert "the model's files are others" in found.reason


def test_a_bundle_verifies_and_replays_by_itself(version, tmp_path, monkeypatch) -> None:
    uri, _ = version
    for name in ("one", "two"):
        assert invoke(["export", uri, "--to", str(tmp_path / f"{name}.zip")]) == 0
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert invoke(["export", uri, "--to", str(tmp_path / "one.zip")]) == 2
    done = export(uri, tmp_path / "bundle")
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert tuple(sorted(archive.namelist())) == done.files
        archive.extractall(tmp_path / "unpacked")
    assert tree(tmp_path / "unpacked") == tree(tmp_path / "bundle")
    checked = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"],
        cwd=tmp_path / "bundle",
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    readme = (tmp_path / "bundle/README.md").read_text()
    assert "{" not in readme
    assert "--model model" in readme
    assert "\nscikit-learn==" in (tmp_path / "bundle/environment/requirements.txt").read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/at/all.db")
    snapshot, model = tmp_path / "bundle/snapshot", tmp_path / "bundle/model"
    assert [f.verdict for f in explain_step.verify(snapshot)] == ["pass"]
    found = explain_step.replay(snapshot, data=tmp_path / "rows.parquet", model=model, figures=False)
    assert found.replays, found.reason
    assert found.replayed_id == found.snapshot_id
    assert found.notes == ()


def test_a_model_that_changed_is_not_exported(version, tmp_path) -> None:
    uri, folder = version
    (folder / "more.txt").write_text("one more file")
    assert invoke(["export", uri, "--to", str(tmp_path / "bundle")]) == 1
    assert not (tmp_path / "bundle").exists()
    done = export(uri, tmp_path / "bundle", model=False)
    assert done.model.startswith("left out on request; it is models:/m-")


def test_a_bundle_holds_no_link(tmp_path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/link").symlink_to("/etc/hostname")
    with pytest.raises(explain_step.InvalidInput, match="link or a special file"):
        bundle(tmp_path / "to", texts={}, folders={"snapshot": tmp_path / "from"}, leave_out={})
    assert not (tmp_path / "to").exists()
