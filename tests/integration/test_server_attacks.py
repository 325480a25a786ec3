"""Attacks on the gated server, over plain HTTP or on its disk. ``docs/security.md`` lists them by the names here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import pytest

from explain_step.snapshot.manifest import MAX_MANIFEST_BYTES, dump, seal

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from gate_kit import Version, World

PROMPT = "mlflow.prompt.is_prompt"


def fresh(prefix: str = "attack") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="module")
def bad(world: World) -> Version:
    """An unexplained version."""
    return world.unexplained(fresh())


@pytest.fixture(scope="module")
def champion(world: World) -> str:
    """A registered model whose champion is the explained version."""
    name = fresh("champion")
    version = world.another_version(name)
    assert world.server.alias(name, version).status_code == 200
    return name


def tag(world: World, version: Version, key: str, value: str) -> int:
    body = {"name": version.name, "version": version.version, "key": key, "value": value}
    return world.server.api("POST", "model-versions/set-tag", **body).status_code


# -- the alias by every route ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow/registered-models/alias",
        "/ajax-api/2.0/mlflow/registered-models/alias",
        "//api/2.0/mlflow/registered-models/alias",
        "/api/2.0//mlflow/registered-models/alias",
        "/api/2.0/mlflow/%72egistered-models/alias",
        "/api/2.0/mlflow/registered-models/%61lias",
        "/api/2.0/mlflow/../mlflow/registered-models/alias",
        "/api/2.0/mlflow/registered-models/alias/",
        "/api/3.0/mlflow/registered-models/alias",
        "/api/2.0/preview/mlflow/registered-models/alias",
    ],
)
def test_spellings_of_the_route(world: World, bad: Version, path: str) -> None:
    body = {"name": bad.name, "alias": "champion", "version": bad.version}
    answer = world.server.request("POST", path, json=body)
    assert answer.status_code in (403, 404, 405)
    assert world.aliases(bad.name) == {}


ALIASES = ["Champion", "CHAMPION", "ch\u00e1mpion", "\uff43hampion", "champ\u0131on".upper(), "LIVE-eu"]
"""An accent, a letter of another width, and what the Turkish dotless i becomes."""


@pytest.mark.parametrize("alias", ALIASES)
def test_spellings_of_the_alias(world: World, bad: Version, alias: str) -> None:
    assert world.server.alias(bad.name, bad.version, alias).status_code == 403
    assert world.aliases(bad.name) == {}


@pytest.mark.parametrize("version", ["01", " 1", "1.0", "latest", "-1", "1e0"])
def test_spellings_of_the_version(world: World, bad: Version, version: str) -> None:
    assert world.server.alias(bad.name, version).status_code in (400, 403, 404)
    assert world.aliases(bad.name) == {}


@pytest.mark.parametrize("stage", ["Production", "production", "PRODUCTION"])
@pytest.mark.parametrize("prefix", ["/api/2.0/mlflow", "/ajax-api/2.0/mlflow"])
def test_stages(world: World, bad: Version, stage: str, prefix: str) -> None:
    body = {"name": bad.name, "version": bad.version, "stage": stage, "archive_existing_versions": True}
    answer = world.server.api("POST", "model-versions/transition-stage", prefix=prefix, **body)
    assert answer.status_code == 403
    assert world.client.get_model_version(bad.name, bad.version).current_stage == "None"


def test_graphql_sets_no_alias(world: World, bad: Version) -> None:
    given = f'name: "{bad.name}", alias: "champion", version: "{bad.version}"'
    query = f"mutation {{ mlflowSetRegisteredModelAlias(input: {{{given}}}) {{ __typename }} }}"
    world.server.request("POST", "/graphql", json={"query": query, "operationName": None, "variables": {}})
    assert world.aliases(bad.name) == {}


def test_a_champion_cannot_be_moved_by_many_at_once(world: World, champion: str) -> None:
    worse = world.unexplained(champion).version
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: world.server.alias(champion, worse).status_code, range(20)))
    assert set(answers) == {403}
    assert world.aliases(champion) == {"champion": "1"}


# -- into and out of protected names -----------------------------------------------------------------------


def test_creating_and_copying_into_a_protected_model(world: World, bad: Version) -> None:
    from mlflow.exceptions import MlflowException

    name = fresh("prod.")
    world.registered(name)
    for source in (f"models:/{bad.model_id}", f"models:/{bad.name}/{bad.version}"):
        body = {"name": name, "source": source, "run_id": bad.run_id}
        model = {"model_id": bad.model_id} if bad.model_id in source else {}
        answer = world.server.api("POST", "model-versions/create", **body, **model)
        assert answer.status_code == 403, answer.text
    with pytest.raises(MlflowException, match="is not explained"):
        world.client.copy_model_version(f"models:/{bad.name}/{bad.version}", name)
    assert world.client.search_model_versions(f"name = '{name}'") == []


def test_a_chain_of_copies_does_not_wash(world: World, bad: Version) -> None:
    first = world.client.copy_model_version(f"models:/{bad.name}/{bad.version}", fresh())
    second = world.client.copy_model_version(f"models:/{first.name}/1", fresh())
    assert world.server.alias(second.name, "1").status_code == 403


def test_a_copy_whose_origin_is_deleted_and_made_again(world: World, bad: Version) -> None:
    origin, name = fresh(), fresh()
    world.client.copy_model_version(f"models:/{bad.name}/{bad.version}", origin)
    world.client.copy_model_version(f"models:/{origin}/1", name)
    world.client.delete_registered_model(origin)
    assert world.another_version(origin) == "1"
    assert world.server.alias(name, "1").status_code == 403


def test_renaming(world: World, bad: Version, champion: str) -> None:
    rename = {"name": bad.name, "new_name": fresh("prod.")}
    assert world.server.api("POST", "registered-models/rename", **rename).status_code == 403
    kept = fresh("prod.")
    world.another_version(kept)
    for old, new in ((kept, fresh()), (champion, fresh())):
        answer = world.server.api("POST", "registered-models/rename", name=old, new_name=new)
        assert answer.status_code == 403, answer.text
    harmless = fresh()
    world.registered(harmless)
    assert (
        world.server.api("POST", "registered-models/rename", name=harmless, new_name=fresh()).status_code
        == 200
    )


# -- prompts -----------------------------------------------------------------------------------------------


def test_a_model_turned_into_a_prompt(world: World, bad: Version) -> None:
    for key in (PROMPT, PROMPT.upper(), "mlflow.prompt.Is_Prompt"):
        body = {"name": bad.name, "key": key, "value": "true"}
        assert world.server.api("POST", "registered-models/set-tag", **body).status_code == 403
        assert tag(world, bad, key, "true") == 403
    assert world.server.alias(bad.name, bad.version).status_code == 403


def test_a_version_inside_a_prompt(world: World, bad: Version) -> None:
    name = fresh("prompt")
    world.client.register_prompt(name=name, template="x")
    source = {"source": f"models:/{bad.model_id}", "model_id": bad.model_id, "run_id": bad.run_id}
    for tags in ([], [{"key": PROMPT, "value": "true"}]):
        answer = world.server.api("POST", "model-versions/create", name=name, tags=tags, **source)
        assert answer.status_code in (400, 403)
    assert world.server.alias(name, "2").status_code in (403, 404)


def test_a_prompt_inside_a_model(world: World, bad: Version) -> None:
    """A prompt is judged by nobody; it may not become the champion of those who load a model."""
    body = {"name": bad.name, "source": "dummy-source", "tags": [{"key": PROMPT, "value": "true"}]}
    answer = world.server.api("POST", "model-versions/create", **body)
    assert (answer.status_code, "it holds models, not prompts" in answer.text) == (403, True), answer.text
    assert len(world.client.search_model_versions(f"name = '{bad.name}'")) == 1


def test_the_prompt_tag_taken_off_again(world: World, bad: Version) -> None:
    name = fresh("prompt")
    world.client.register_prompt(name=name, template="x")
    for path in ("registered-models/delete-tag", "model-versions/delete-tag"):
        answer = world.server.api("DELETE", path, name=name, version="1", key=PROMPT)
        assert answer.status_code == 403
    empty = fresh()
    body = {"name": empty, "tags": [{"key": PROMPT, "value": "true"}]}
    assert world.server.api("POST", "registered-models/create", **body).status_code == 200
    assert (
        world.server.api("DELETE", "registered-models/delete-tag", name=empty, key=PROMPT).status_code == 200
    )
    source = {"source": f"models:/{bad.model_id}", "model_id": bad.model_id, "run_id": bad.run_id}
    assert world.server.api("POST", "model-versions/create", name=empty, **source).status_code == 200
    assert world.server.alias(empty, "1").status_code == 403


# -- tags --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("explain_step.status", "complete"),
        ("explain_step.status", "degraded"),
        ("explain_step.status", "waived"),
        ("Explain_Step.status", "complete"),
        ("EXPLAIN_STEP.anything", "x"),
        ("explain_step.anything", "x"),
        ("explain_step.snapshot_id", "0" * 64),
        ("explain_step.manifest_sha256", "0" * 64),
        ("explain_step.evidence", f"models:/m-{'0' * 32}/explanations/{'0' * 64}"),
        ("explain_step.decision", '{"path": "explanations/decisions/x.json", "sha256": "00"}'),
        ("explain_step.review.x", "approved"),
        ("explain_step.break_glass", '{"owner": "a", "reason": "b", "expires": "2099-01-01T00:00:00+00:00"}'),
    ],
)
def test_hand_set_tags(world: World, bad: Version, key: str, value: str) -> None:
    assert tag(world, bad, key, value) == 403
    body = {"name": bad.name, "key": key, "value": value}
    assert world.server.api("POST", "registered-models/set-tag", **body).status_code == 403
    taken_off = world.server.api("DELETE", "registered-models/delete-tag", name=bad.name, key=key)
    assert taken_off.status_code == 403
    source = {"source": f"models:/{bad.model_id}", "model_id": bad.model_id, "run_id": bad.run_id}
    tags = [{"key": key, "value": value}]
    assert world.server.api("POST", "registered-models/create", name=fresh(), tags=tags).status_code == 403
    answer = world.server.api("POST", "model-versions/create", name=bad.name, tags=tags, **source)
    assert answer.status_code == 403


def test_true_tags_are_taken_and_false_ones_of_an_explained_version_are_not(world: World) -> None:
    name = fresh()
    version = world.another_version(name)
    mine = type(world.good)(**{**vars_of(world.good), "name": name, "version": version})
    facts = world.client.get_model_version("mortgage", "1").tags
    assert tag(world, mine, "explain_step.status", "pending") == 200
    assert tag(world, mine, "explain_step.manifest_sha256", facts["explain_step.manifest_sha256"]) == 403
    for key in ("snapshot_id", "manifest_sha256", "schema", "evidence", "reason", "status"):
        assert tag(world, mine, f"explain_step.{key}", facts[f"explain_step.{key}"]) == 200
    assert tag(world, mine, "explain_step.status", "degraded") == 403
    assert tag(world, mine, "explain_step.manifest_sha256", "0" * 64) == 403
    body = {"name": name, "version": version, "key": "explain_step.status"}
    assert world.server.api("DELETE", "model-versions/delete-tag", **body).status_code == 403


def test_a_manifest_that_was_changed_proves_no_tag(world: World) -> None:
    name = fresh()
    mine = type(world.good)(**{**vars_of(world.good), "name": name, "version": world.another_version(name)})
    (place,) = (world.good.folder / "explanations").glob("*/manifest.json")
    with world.changed(place):
        place.write_bytes(place.read_bytes().replace(b'"reason": "', b'"reason": "better: ', 1))
        digest = hashlib.sha256(place.read_bytes()).hexdigest()
        assert tag(world, mine, "explain_step.snapshot_id", place.parent.name) == 403
        assert tag(world, mine, "explain_step.manifest_sha256", digest) == 403


def vars_of(version: Version) -> dict[str, Any]:
    return {name: getattr(version, name) for name in version.__dataclass_fields__}


def test_a_tag_set_in_the_database_proves_nothing(world: World, bad: Version) -> None:
    database = world.server.folder / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as direct, direct:
        row = (bad.name, int(bad.version), "explain_step.status", "complete", "default")
        direct.execute(
            "INSERT INTO model_version_tags (name, version, key, value, workspace) VALUES (?, ?, ?, ?, ?)",
            row,
        )
    assert world.server.alias(bad.name, bad.version).status_code == 403


# -- the model's own files ---------------------------------------------------------------------------------


def test_weights_overwritten_through_the_server(world: World) -> None:
    before = (world.good.folder / "MLmodel").read_bytes()
    for prefix in ("/api/2.0", "/ajax-api/2.0"):
        for name in ("MLmodel", "model.skops", "new.py", "sub/new.py", "MLmodel/x"):
            assert world.server.put(f"{world.good.path}/{name}", prefix=prefix).status_code == 403
    assert (world.good.folder / "MLmodel").read_bytes() == before
    assert world.server.alias("mortgage", "1").status_code == 200


SPELLINGS = [
    "{root}/explanations/../MLmodel",
    "{root}/explanations/%2e%2e/MLmodel",
    "{root}/explanations/%252e%252e/MLmodel",
    "{root}/./MLmodel",
    "{root}//MLmodel",
    "{root}/MLmodel.",
    "{root}/MLmodel%20",
    "{root}/mlmodel",
    "{root}/explanations%5c..%5cMLmodel",
    "{root}/Explanations/x",
    "{root}/EXPLANATIONS/x",
    "{root}/explanations./x",
    "{experiment}/x/../models/{model}/artifacts/MLmodel",
    "{experiment}/models/{upper}/artifacts/MLmodel",
    "{experiment}/models/{model}./artifacts/MLmodel",
    "{experiment}/models/{model}/ARTIFACTS/MLmodel",
    "{experiment}%2fmodels%2f{model}%2fartifacts%2fMLmodel",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_a_path(world: World, spelling: str) -> None:
    good = world.good
    names = {"root": good.path, "experiment": good.path.split("/")[0], "model": good.model_id}
    path = spelling.format(**names, upper=good.model_id.upper())
    before = tree(good.folder)
    for answer in (world.server.put(path), world.server.delete(path)):
        assert answer.status_code in (400, 403, 404, 405), answer.text
    assert tree(good.folder) == before


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_deleting_files_and_folders(world: World) -> None:
    good = world.good
    before = tree(good.folder)
    experiment, models = good.path.split("/")[0], good.path.rsplit("/", 2)[0]
    evidence = f"{good.path}/explanations/{good.snapshot_id}"
    for path in (
        *(
            f"{good.path}/MLmodel",
            f"{evidence}/report.html",
            f"{evidence}/manifest.json",
            f"{evidence}/tables",
        ),
        *(evidence, f"{good.path}/explanations", good.path, f"{models}/{good.model_id}", models, experiment),
        *(f"{good.path}/", f"{models}/", ".", "%2e", f"{experiment}/.", f"{good.path}/explanations/."),
    ):
        assert world.server.delete(path).status_code in (400, 403, 404, 405), path
    assert tree(good.folder) == before


def test_a_finished_model_is_not_opened_again(world: World) -> None:
    for status in (1, 3, "LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_PENDING"):
        answer = world.server.api(
            "PATCH", f"logged-models/{world.good.model_id}", model_id=world.good.model_id, status=status
        )
        assert answer.status_code in (400, 403)
    assert str(world.client.get_logged_model(world.good.model_id).status) == "READY"
    pending = world.unexplained(fresh(), ready=False)
    for version, status in ((world.good, "READY"), (pending, "FAILED"), (pending, "READY")):
        world.client.finalize_logged_model(version.model_id, status)
        assert str(world.client.get_logged_model(version.model_id).status) == status


def test_an_upload_that_ends_after_the_model_is_finished(world: World) -> None:
    late = world.unexplained(fresh(), ready=False)
    address = urlparse(world.server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as slow:
        head = f"PUT /api/2.0/mlflow-artifacts/artifacts/{late.path}/model.bin HTTP/1.1\r\nHost: {address.netloc}\r\n"
        slow.sendall(f"{head}Content-Length: 8\r\n\r\nevil".encode())
        world.client.finalize_logged_model(late.model_id, "READY")
        slow.sendall(b"evil")
        assert b" 403 " in slow.recv(65536)
    assert (late.folder / "model.bin").read_bytes() == b"weights"


def test_training_and_what_belongs_to_nobody_stay_writable(world: World) -> None:
    run = world.client.create_run(world.experiment_id)
    path = run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    for name in ("notes.txt", "plots/a b.png", "100%.txt", "explanations/report.html", "é.txt"):
        for _ in range(2):
            assert world.server.put(f"{path}/{name.replace('%', '%25')}").status_code == 200
    assert world.server.delete(f"{path}/plots").status_code == 200
    assert world.server.delete(f"{path}/notes.txt").status_code == 200
    assert world.server.put("somewhere/else.txt").status_code == 200
    assert world.server.delete("somewhere/else.txt").status_code == 200
    pending = world.unexplained(fresh(), ready=False)
    assert world.server.put(f"{pending.path}/MLmodel", b"flavors: {}\n").status_code == 200
    assert world.server.delete(f"{pending.path}/model.bin").status_code == 200


def test_a_weights_file_changed_on_disk(world: World) -> None:
    with world.changed(world.good.folder / "MLmodel") as file:
        file.write_bytes(b"flavors: {}\n")
        refused = world.server.alias("mortgage", "1")
    assert refused.status_code == 403
    assert "GATE004" in refused.json()["message"]
    assert world.server.alias("mortgage", "1").status_code == 200


# -- the evidence ------------------------------------------------------------------------------------------


def test_evidence_overwritten_or_added_to_through_the_server(world: World) -> None:
    good = world.good
    before = tree(good.evidence)
    for name in ("manifest.json", "report.html", "tables/importance.parquet", "new.txt", "signatures/x.json"):
        path = f"{good.path}/explanations/{good.snapshot_id}/{name}"
        assert world.server.put(path).status_code == 403, name
        assert world.server.put(path, prefix="/ajax-api/2.0").status_code == 403
    assert tree(good.evidence) == before


def test_evidence_through_the_upload_of_the_user_interface(world: World) -> None:
    run = world.client.create_run(world.experiment_id)
    path = f"explanations/{world.good.snapshot_id}/manifest.json"
    query = f"run_uuid={run.info.run_id}&path={path}"
    answer = world.server.request("POST", f"/ajax-api/2.0/mlflow/upload-artifact?{query}", data=b"{}")
    assert answer.status_code in (400, 403)
    own = f"../../models/{world.good.model_id}/artifacts/MLmodel"
    query = f"run_uuid={run.info.run_id}&path={own}"
    answer = world.server.request("POST", f"/ajax-api/2.0/mlflow/upload-artifact?{query}", data=b"{}")
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("action", ["create", "complete", "abort"])
def test_multipart_uploads(world: World, action: str) -> None:
    body = {"path": "model.skops", "num_parts": 1, "upload_id": "x", "parts": []}
    path = f"/api/2.0/mlflow-artifacts/mpu/{action}/{world.good.path}"
    answer = world.server.request("POST", path, json=body)
    assert answer.status_code in (400, 403, 404, 501)


def test_presigned_urls(world: World) -> None:
    for body in ({"run_id": world.good.run_id, "path": "x"}, {"path": f"{world.good.path}/MLmodel"}):
        answer = world.server.request("POST", "/api/2.0/mlflow/artifacts/presigned-upload-url", json=body)
        assert answer.status_code in (400, 403, 404, 501)


def test_a_manifest_of_another_snapshot_finishes_nothing(world: World, bad: Version) -> None:
    manifest = (world.good.evidence / "manifest.json").read_bytes()
    changed = manifest.replace(b'"complete"', b'"degraded"', 1)
    for content in (manifest, b"{}", b"not json", b"\xff", b"[" * 100_000):
        path = f"{bad.path}/explanations/{'0' * 64}/manifest.json"
        assert world.server.put(path, content).status_code == 403
    later = dump(seal({**json.loads(manifest), "schema_version": 99}))
    path = f"{bad.path}/explanations/{world.good.snapshot_id}/manifest.json"
    for content in (changed, later, manifest + b" " * MAX_MANIFEST_BYTES):
        assert world.server.put(path, content).status_code == 403


def test_evidence_of_another_model(world: World) -> None:
    thief = world.unexplained(fresh(), files=tree_of_model(world.good))
    for name, content in sorted(
        tree(world.good.evidence).items(), key=lambda item: item[0] == "manifest.json"
    ):
        path = f"{thief.path}/explanations/{world.good.snapshot_id}/{name}"
        assert world.server.put(path, content).status_code == 200
    answer = world.server.alias(thief.name, thief.version)
    assert answer.status_code == 403
    assert "GATE005" in answer.json()["message"]


def tree_of_model(version: Version) -> dict[str, bytes]:
    return {name: data for name, data in tree(version.folder).items() if not name.startswith("explanations/")}


def _manifest_with(evidence: Path, **changes: Any) -> None:
    manifest = json.loads((evidence / "manifest.json").read_bytes())
    (evidence / "manifest.json").write_bytes(dump(seal({**manifest, **changes})))


def _another_status(evidence: Path) -> None:
    place = evidence / "manifest.json"
    place.write_bytes(place.read_bytes().replace(b'"status": "complete"', b'"status": "degraded"', 1))


def _more_files(evidence: Path) -> None:
    for number in range(3_000):
        (evidence / f"extra{number}.txt").touch()


def _link(evidence: Path) -> None:
    (evidence / "report.html").unlink()
    (evidence / "report.html").symlink_to("/etc/hostname")


def _linked_folder(evidence: Path) -> None:
    shutil.move(evidence / "tables", evidence.parent.parent / "tables-elsewhere")
    (evidence / "tables").symlink_to(evidence.parent.parent / "tables-elsewhere")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a changed byte": (lambda e: (e / "card.md").write_text("fine"), "GATE003"),
    "a changed table": (lambda e: (e / "tables" / "importance.parquet").write_bytes(b"x"), "GATE003"),
    "a missing file": (lambda e: (e / "card.md").unlink(), "GATE003"),
    "an extra file": (lambda e: (e / "extra.txt").write_text("x"), "GATE003"),
    "a changed status": (_another_status, "GATE003"),
    "a manifest that is no JSON": (lambda e: (e / "manifest.json").write_text("{"), "GATE003"),
    "no manifest": (lambda e: (e / "manifest.json").unlink(), "GATE002"),
    "a huge manifest": (lambda e: (e / "manifest.json").write_bytes(b" " * (17 << 20)), "GATE003"),
    "three thousand files": (_more_files, "GATE001"),
    "a link": (_link, "GATE003"),
    "a linked folder": (_linked_folder, "GATE003"),
    "a sealed manifest for another model": (
        lambda e: _manifest_with(e, model={"digest": "0" * 64, "model_id": "m-0", "binding": "verified"}),
        "GATE00",
    ),
    "a signature that is none": (
        lambda e: ((e / "signatures").mkdir(), (e / "signatures" / f"{'0' * 64}.json").write_text("{}")),
        "GATE003",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_evidence_changed_on_disk_right_after_an_allow(world: World, case: str) -> None:
    damage, code = DAMAGE[case]
    assert world.server.alias("mortgage", "1").status_code == 200
    with world.changed(world.good.evidence) as evidence:
        damage(evidence)
        refused = world.server.alias("mortgage", "1")
    shutil.rmtree(world.good.folder / "tables-elsewhere", ignore_errors=True)
    assert refused.status_code == 403
    assert code in refused.json()["message"]
    assert world.server.alias("mortgage", "1").status_code == 200


def test_a_damaged_snapshot_may_be_written_again(world: World) -> None:
    path = f"{world.good.path}/explanations/{world.good.snapshot_id}/manifest.json"
    with world.changed(world.good.evidence) as evidence:
        (evidence / "card.md").write_text("damaged")
        assert world.server.delete(path).status_code == 200
        assert not (evidence / "manifest.json").exists()


def record(content: bytes = b"{}\n", time: str = "20260101T000000.000000Z", digest: str = "") -> str:
    return f"{time}-{digest or hashlib.sha256(content).hexdigest()[:12]}.json"


def test_records_are_appended_only(world: World, bad: Version) -> None:
    for folder, name in (("decisions", record()), ("reviews", f"{fresh('r')}.json")):
        path = f"{bad.path}/explanations/{folder}/{name}"
        assert world.server.put(path, b"{}\n").status_code == 200
        assert world.server.put(path, b"{}\n").status_code == 403
        assert world.server.delete(path).status_code == 403
        assert world.server.delete(path.rsplit("/", 1)[0]).status_code == 403
        assert world.server.put(f"{path}/below", b"2").status_code == 403


def test_a_pointer_to_a_decision_names_a_record_with_its_digest(world: World) -> None:
    mine, body = world.unexplained(fresh()), b"{}\n"
    path = f"explanations/decisions/{record(body)}"
    assert world.server.put(f"{mine.path}/{path}", body).status_code == 200
    true = hashlib.sha256(body).hexdigest()
    for place, digest, expected in (
        (path, "0" * 64, 403),
        (f"explanations/decisions/{record(b'{} ')}", hashlib.sha256(b"{} ").hexdigest(), 403),
        ("MLmodel", true, 403),
        (path, true, 200),
    ):
        pointer = json.dumps({"path": place, "sha256": digest})
        assert tag(world, mine, "explain_step.decision", pointer) == expected, place


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.json", b"{}\n"),
        (record(time="99991231T235959.999999Z"), b"{}\n"),
        (record(time="20261399T999999.999999Z"), b"{}\n"),
        (record(digest="0" * 12), b"{}\n"),
        (record(b"[]"), b"[]"),
        (record(DEEP), DEEP),
        (record(b"\xff"), b"\xff"),
        (record(b" " * (5 << 20)), b" " * (5 << 20)),
    ],
)
def test_what_is_no_record_does_not_spoil_the_decision_log(world: World, name: str, content: bytes) -> None:
    for spelling in ("explanations/decisions", "Explanations/Decisions", "explanations//decisions"):
        assert world.server.put(f"{world.good.path}/{spelling}/{name}", content).status_code == 403


# -- deletion of what a champion rests on -------------------------------------------------------------------


@pytest.fixture
def held(world: World) -> Iterator[str]:
    """The explained model is champion of a registered model of its own."""
    name = fresh("held")
    version = world.another_version(name)
    assert world.server.alias(name, version).status_code == 200
    yield name
    world.server.api("DELETE", "registered-models/alias", name=name, alias="champion")


def test_deleting_what_a_champion_rests_on(world: World, held: str) -> None:
    good = world.good
    requests = {
        "run": ("POST", "runs/delete", {"run_id": good.run_id}),
        "version": ("DELETE", "model-versions/delete", {"name": held, "version": "1"}),
        "registered model": ("DELETE", "registered-models/delete", {"name": held}),
        "logged model": ("DELETE", f"logged-models/{good.model_id}", {"model_id": good.model_id}),
        "experiment": ("POST", "experiments/delete", {"experiment_id": world.experiment_id}),
    }
    for what, (method, path, body) in requests.items():
        answer = world.server.api(method, path, **body)
        assert answer.status_code == 403, what
        assert "protected" in answer.json()["message"]
    assert world.client.get_run(good.run_id).info.lifecycle_stage == "active"


def test_what_nobody_rests_on_can_be_deleted(world: World) -> None:
    gone = world.unexplained(fresh())
    assert world.server.api("POST", "runs/delete", run_id=gone.run_id).status_code == 200
    answer = world.server.api("DELETE", f"logged-models/{gone.model_id}", model_id=gone.model_id)
    assert answer.status_code == 200
    assert world.server.alias(gone.name, gone.version).status_code == 403
    assert world.server.put(f"{gone.path}/MLmodel").status_code == 403
    assert world.server.delete(gone.path).status_code == 200
    experiment = world.client.create_experiment(fresh())
    assert world.server.api("POST", "experiments/delete", experiment_id=experiment).status_code == 200


def test_who_made_a_run_stays(world: World) -> None:
    run = world.client.create_run(world.experiment_id, tags={"mlflow.user": "ann"})
    run_id = run.info.run_id
    body = {"run_id": run_id, "key": "mlflow.user", "value": "bob"}
    assert world.server.api("POST", "runs/set-tag", **body).status_code == 403
    batch = {"run_id": run_id, "tags": [{"key": "mlflow.user", "value": "bob"}]}
    assert world.server.api("POST", "runs/log-batch", **batch).status_code == 403
    assert world.server.api("POST", "runs/delete-tag", run_id=run_id, key="mlflow.user").status_code == 403
    assert world.server.api("POST", "runs/set-tag", **{**body, "value": "ann"}).status_code == 200
    for path in ("runs/set-tag", "runs/delete-tag"):  # other tags come and go
        other = {"run_id": run_id, "key": "note", "value": "x"}
        assert world.server.api("POST", path, **other).status_code == 200
    for key in ("MLFLOW.user", "mlflow.us\u00e9r"):  # one row with mlflow.user for databases that fold keys
        spelled = {"run_id": run_id, "key": key, "value": "bob"}
        assert world.server.api("POST", "runs/set-tag", **spelled).status_code == 403
        assert world.server.api("POST", "runs/delete-tag", run_id=run_id, key=key).status_code == 403
    assert (
        world.server.api(
            "POST", "runs/set-tag", run_id=run_id, key="explain_step.status", value="x"
        ).status_code
        == 200
    )


# -- where a version has its files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc",
        "/etc",
        "http://127.0.0.1:1/{id}",
        "http://127.0.0.1:1/models:/{id}",
        "s3://bucket/models:/{id}",
        "mlflow-artifacts:/{path}/explanations",
        "mlflow-artifacts:/{path}/../../{bad}/artifacts",
        "mlflow-artifacts://elsewhere:1/{path}",
        "mlflow-artifacts:/{bad_path}",
        "runs:/{run}/model",
        "models:/{id}/x",
        "models:/{bad}#models:/{id}",
        "dummy-source",
    ],
)
def test_a_version_whose_files_are_elsewhere(world: World, bad: Version, source: str) -> None:
    good, name = world.good, fresh()
    world.registered(name)
    names = {"id": good.model_id, "path": good.path, "run": good.run_id}
    text = source.format(**names, bad=bad.model_id, bad_path=bad.path)
    for model in ({"model_id": good.model_id}, {}):
        body = {"name": name, "source": text, "run_id": good.run_id, **model}
        world.server.api("POST", "model-versions/create", **body)
    for version in ("1", "2"):
        assert world.server.alias(name, version).status_code in (403, 404)
    assert world.aliases(name) == {}


def test_a_run_of_somebody_else_does_not_change_the_author(world: World) -> None:
    from explain_step.tracking.evidence import gather

    other = world.client.create_run(world.experiment_id, tags={"mlflow.user": "somebody else"})
    name = fresh()
    world.registered(name)
    body = {"source": f"models:/{world.good.model_id}", "model_id": world.good.model_id}
    world.server.api("POST", "model-versions/create", name=name, run_id=other.info.run_id, **body)
    evidence = gather(name, "1", client=world.client)
    assert evidence.run_id == world.good.run_id
    assert evidence.author != "somebody else"
