"""The sealed artifact store on S3: a real object store process (moto), multipart uploads, and writers past the server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import server_kit
from gate_kit import FILES, GATE_POLICY, Version, World, log_explained
from mlflow import MlflowClient
from tracking_kit import current_store

import explain_step
from explain_step.errors import SnapshotError

pytestmark = pytest.mark.slow

BUCKET, ROOT = "models", "team/root"
ACCESS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A gated server whose artifacts are in a bucket, an explained version, and a client of the bucket itself."""

    world: World
    bucket: Any

    def key(self, path: str) -> str:
        return f"{ROOT}/{path}"

    def read(self, path: str) -> bytes:
        body: bytes = self.bucket.get_object(Bucket=BUCKET, Key=self.key(path))["Body"].read()
        return body

    def write(self, path: str, content: bytes) -> None:
        self.bucket.put_object(Bucket=BUCKET, Key=self.key(path), Body=content)

    def names(self, path: str) -> list[str]:
        found = self.bucket.list_objects_v2(Bucket=BUCKET, Prefix=self.key(path)).get("Contents", [])
        return [entry["Key"].removeprefix(f"{ROOT}/{path}/") for entry in found]

    def multipart(self, action: str, folder: str, **body: Any) -> requests.Response:
        path = f"/api/2.0/mlflow-artifacts/mpu/{action}/{folder}"
        return self.world.server.request("POST", path, json=body)

    def alias(self) -> requests.Response:
        return self.world.server.alias("mortgage", "1")


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[str]:
    """Run moto's server until the block ends."""
    port = server_kit.free_port()
    with (folder / "moto.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + server_kit.START_SECONDS
            while True:
                try:
                    requests.get(url, timeout=5)
                    break
                except requests.ConnectionError:
                    assert process.poll() is None, (folder / "moto.log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
            yield url
        finally:
            server_kit.stop(process)


@pytest.fixture(scope="module")
def sealed(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    folder = tmp_path_factory.mktemp("s3")
    with object_store(folder) as url:
        keys = {name.lower(): value for name, value in ACCESS.items() if "KEY" in name}
        bucket = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
        bucket.create_bucket(Bucket=BUCKET)
        settings: dict[str, Any] = {"policy": GATE_POLICY, "migrated": migrated}
        settings |= {"env": {**ACCESS, "MLFLOW_S3_ENDPOINT_URL": url}}
        with server_kit.serving(folder, destination=f"s3://{BUCKET}/{ROOT}", **settings) as server:
            client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
            experiment_id = client.create_experiment("s3")
            with contextlib.chdir(folder), current_store(server.url, experiment_id):
                logged = log_explained(server.url, "mortgage")
            assert logged.status == "complete", logged.reason
            location = client.get_logged_model(logged.model_id).artifact_location
            path = location.removeprefix("mlflow-artifacts:/")
            good = Version(
                name="mortgage",
                version="1",
                model_id=logged.model_id,
                run_id=logged.run_id,
                path=path,
                folder=folder / "nowhere",
                snapshot_id=logged.id,
            )
            world = World(server=server, client=client, experiment_id=experiment_id, good=good)
            yield Sealed(world=world, bucket=bucket)
        bucket.close()


def test_an_explained_version_is_promoted_and_another_is_not(sealed: Sealed) -> None:
    assert sealed.alias().status_code == 200
    bad = sealed.world.unexplained("bad")
    answer = sealed.world.server.alias(bad.name, bad.version)
    assert (answer.status_code, "GATE002" in answer.text) == (403, True)


def test_what_is_finished_is_sealed(sealed: Sealed) -> None:
    good, server = sealed.world.good, sealed.world.server
    before = sealed.names(good.path)
    for path in ("model.skops", "new.bin", f"explanations/{good.snapshot_id}/manifest.json"):
        assert server.put(f"{good.path}/{path}").status_code == 403, path
    for path in (
        good.path,
        f"{good.path}/MLmodel",
        good.path.rpartition("/m-")[0],
        good.path.partition("/")[0],
    ):
        assert server.delete(path).status_code == 403, path
    for root in (f"s3://{BUCKET}/{ROOT}", f"S3://{BUCKET}/{ROOT}/9"):
        made = server.api("POST", "experiments/create", name=root, artifact_location=root)
        assert made.status_code == 403, root
    assert sealed.names(good.path) == before


def test_multipart_uploads_are_judged_when_they_begin_and_when_they_end(sealed: Sealed) -> None:
    good, world = sealed.world.good, sealed.world
    evidence = f"{good.path}/explanations"
    for folder, name in (
        (good.path, "MLmodel"),
        (f"{evidence}/{good.snapshot_id}", "manifest.json"),
        (f"{evidence}/{good.snapshot_id}", "card.md"),
        (f"{evidence}/decisions", "20260101T000000.000000Z-0123456789ab.json"),
        (f"{evidence}/{'0' * 64}", "manifest.json"),
    ):
        begun = sealed.multipart("create", folder, path=f"{folder}/{name}", num_parts=1)
        assert begun.status_code == 403, name
    run = world.client.create_run(world.experiment_id)
    model = world.client.create_logged_model(world.experiment_id, source_run_id=run.info.run_id)
    path = model.artifact_location.removeprefix("mlflow-artifacts:/")
    assert world.server.put(f"{path}/MLmodel", FILES["MLmodel"]).status_code == 200
    target = {"path": f"{path}/model.bin"}
    begun = sealed.multipart("create", path, **target, num_parts=1)
    assert begun.status_code == 200, begun.text
    part = requests.put(begun.json()["credentials"][0]["url"], data=b"late", timeout=30)
    assert part.status_code == 200
    world.client.finalize_logged_model(model.model_id, "READY")
    parts = [{"part_number": 1, "etag": part.headers["ETag"], "url": None}]
    target["upload_id"] = begun.json()["upload_id"]
    assert sealed.multipart("complete", path, **target, parts=parts).status_code == 403
    assert sealed.names(path) == ["MLmodel"]
    assert sealed.multipart("abort", path, **target).status_code == 200


def test_a_large_file_of_a_run_goes_up_in_parts(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    for name in ("MINIMUM_FILE_SIZE", "CHUNK_SIZE"):
        monkeypatch.setenv(f"MLFLOW_MULTIPART_UPLOAD_{name}", str(5 * 2**20))
    content = os.urandom(6 * 2**20)
    (tmp_path / "large.bin").write_bytes(content)
    run = sealed.world.client.create_run(sealed.world.experiment_id)
    sealed.world.client.log_artifact(run.info.run_id, str(tmp_path / "large.bin"), "data")
    assert sealed.world.server.log.read_text().count("/mpu/complete/") >= 1
    place = run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    assert sealed.read(f"{place}/data/large.bin") == content


@pytest.mark.parametrize(
    ("file", "code"),
    [("model.skops", "GATE004"), ("explanations/{}/card.md", "GATE003"), ("new.py", "GATE004")],
)
def test_a_writer_on_the_bucket_itself_is_found(sealed: Sealed, file: str, code: str) -> None:
    good, server = sealed.world.good, sealed.world.server
    assert sealed.alias().status_code == 200
    path = f"{good.path}/{file.format(good.snapshot_id)}"
    before = sealed.read(path) if file != "new.py" else None
    sealed.write(path, (before or b"") + b" ")
    try:
        answer = sealed.alias()
        assert (answer.status_code, code in answer.text) == (403, True), answer.text
        settings = {"tracking_uri": server.url, "policy": str(server.policy)}
        found = explain_step.audit(registered_models="mortgage", **settings)
        assert "AUD004" in found[found["kind"].eq("alias")]["codes"].item()
        with pytest.raises(SnapshotError, match=code):
            explain_step.load_model("models:/mortgage@champion", tracking_uri=server.url)
    finally:
        if before is None:
            sealed.bucket.delete_object(Bucket=BUCKET, Key=sealed.key(path))
        else:
            sealed.write(path, before)
    assert sealed.alias().status_code == 200
