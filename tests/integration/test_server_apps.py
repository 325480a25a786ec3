"""The gate under MLflow's own authentication (uvicorn), and under gunicorn with several workers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import server_kit
from server_kit import Gated

import explain_step
from explain_step.tracking.decision_log import decisions_of
from explain_step.tracking.reviews import review_tag

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from gate_kit import World
    from postgres import Postgres

ADMIN = ("admin", "a long password 1")
READER = ("reader", "a long password 2")
POLICY = "version: 1\nbreak_glass: {allowed: true}\n"


def copied(world: World, folder: Path) -> Path:
    """Copy the database and the artifacts of the shared server: locations in it are relative to the server."""
    shutil.copyfile(world.server.folder / "mlflow.db", folder / "mlflow.db")
    shutil.copytree(world.server.artifacts, folder / "artifacts")
    return folder


def unexplained(world: World) -> tuple[str, str]:
    made = world.unexplained(f"unexplained-{datetime.now(UTC).timestamp()}")
    return made.name, made.version


@pytest.fixture(scope="module")
def with_auth(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gated, str]]:
    pytest.importorskip("flask_wtf", reason="MLflow's basic-auth app needs mlflow[auth]")
    name, _ = unexplained(world)
    folder = copied(world, tmp_path_factory.mktemp("auth"))
    env = {"MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1], "MLFLOW_FLASK_SERVER_SECRET_KEY": "of these tests only"}
    options = ("--app-name", "basic-auth")
    with server_kit.serving(folder, *options, policy=POLICY, env=env, auth=ADMIN) as server:
        user = {"username": READER[0], "password": READER[1]}
        assert server.api("POST", "users/create", **user).status_code == 200
        yield server, name


def test_authentication_comes_first_and_the_gate_holds_for_administrators(
    with_auth: tuple[Gated, str],
) -> None:
    server, name = with_auth
    body = {"name": name, "alias": "champion", "version": "1"}
    path = "/api/2.0/mlflow/registered-models/alias"
    assert server.request("POST", path, json=body, auth=("", "")).status_code == 401
    reader = server.request("POST", path, json=body, auth=READER)
    assert reader.status_code == 403
    assert "GATE" not in reader.text
    admin = server.request("POST", path, json=body)
    assert admin.status_code == 403
    assert "GATE002" in admin.json()["message"]
    assert server.alias("mortgage", "1").status_code == 200
    last = json.loads(server.audit.read_text().splitlines()[-1])
    assert (last["user"], last["authenticated"], last["outcome"]) == ("admin", True, "allow")


def test_health_and_seals_under_authentication(with_auth: tuple[Gated, str], world: World) -> None:
    server, _ = with_auth
    assert server.request("GET", "/explain-step/health", auth=("", "")).status_code == 401
    assert server.request("GET", "/explain-step/health").json()["active"] is True
    assert server.put(f"{world.good.path}/MLmodel").status_code == 403
    assert server.delete(world.good.path).status_code == 403


def test_reviews_and_break_glass_are_of_the_user_who_signed_in(with_auth: tuple[Gated, str]) -> None:
    server, name = with_auth

    def tag(key: str, value: dict[str, Any], model: str) -> int:
        body = {"name": model, "version": "1", "key": f"explain_step.{key}", "value": json.dumps(value)}
        return server.api("POST", "model-versions/set-tag", **body).status_code

    at = datetime.now(UTC).isoformat()
    review = {"decision": "approve", "snapshot_id": "0" * 64, "manifest_sha256": "0" * 64, "at": at}
    assert tag("review.bob", {**review, "reviewer": "bob", "authenticated": True}, "mortgage") == 403
    own = review_tag("admin")
    for like in ("ádmin", "admin\u200b", "\uff41dmin"):
        assert tag(own.removeprefix("explain_step."), {**review, "reviewer": like}, "mortgage") == 403
    assert tag("review.admin", {**review, "reviewer": "admin"}, "mortgage") == 403
    assert tag(own.removeprefix("explain_step."), {**review, "reviewer": "Admin"}, "mortgage") == 200
    found = server.api("GET", "model-versions/get", name="mortgage", version="1").json()["model_version"][
        "tags"
    ]
    stored = {entry["key"]: entry["value"] for entry in found}[own]
    assert (json.loads(stored)["authenticated"], json.loads(stored)["reviewer"]) == (True, "admin")

    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert tag("break_glass", {"owner": "bob", "reason": "outage", "expires": expires}, name) == 403
    assert tag("break_glass", {"owner": "admin", "reason": "outage", "expires": expires}, name) == 200
    assert server.alias(name, "1").status_code == 200
    last = json.loads(server.audit.read_text().splitlines()[-1])
    assert last["break_glass"]["reason"] == "outage"


def test_who_made_a_model_is_not_the_client_s_word(
    with_auth: tuple[Gated, str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from explain_step.tracking.evidence import gather

    server, _ = with_auth
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN[1])
    claims = [{"key": "mlflow.user", "value": "somebody else"}]
    run = server.api("POST", "runs/create", experiment_id=world.experiment_id, tags=claims).json()["run"]
    run_id = run["info"]["run_id"]
    body = {"experiment_id": world.experiment_id, "source_run_id": run_id}
    model = server.api("POST", "logged-models", **body).json()["model"]["info"]["model_id"]
    author = {"key": "explain_step.author", "value": "somebody else"}
    for method, path, claim in (
        ("POST", "runs/set-tag", {"run_id": run_id, **author}),
        ("POST", "runs/log-batch", {"run_id": run_id, "tags": [author]}),
        ("POST", "runs/delete-tag", {"run_id": run_id, "key": author["key"]}),
        ("POST", "runs/create", {"experiment_id": world.experiment_id, "tags": [author]}),
        ("POST", "logged-models", {**body, "tags": [author]}),
        ("PATCH", f"logged-models/{model}/tags", {"tags": [author]}),
        ("DELETE", f"logged-models/{model}/tags/{author['key']}", {}),
    ):
        assert server.api(method, path, **claim).status_code == 403, path
    client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
    assert client.get_logged_model(model).tags["explain_step.author"] == "admin"
    client.create_registered_model("four-eyes")
    source = {"source": f"models:/{model}", "model_id": model, "run_id": run_id}
    assert server.api("POST", "model-versions/create", name="four-eyes", **source).status_code == 200
    evidence = gather("four-eyes", "1", client=client)
    assert (evidence.author, evidence.authors) == ("somebody else", ("admin",))


def test_no_permission_of_mlflow_opens_the_gate(with_auth: tuple[Gated, str]) -> None:
    server, name = with_auth
    for kind, value in (("registered_model", name), ("registered_model", "mortgage")):
        grant = {"username": READER[0], "resource_type": kind, "resource_id": value, "permission": "MANAGE"}
        answer = server.request("POST", "/api/3.0/mlflow/users/permissions/grant", json=grant)
        assert answer.status_code == 200, answer.text

    def refused(path: str, prefix: str = "/api/2.0/mlflow", method: str = "POST", **body: Any) -> str:
        headers = {"X-Forwarded-User": ADMIN[0], "Remote-User": ADMIN[0]}
        answer = server.request(method, f"{prefix}/{path}", json=body, auth=READER, headers=headers)
        assert answer.status_code == 403, (path, answer.text)
        return answer.text

    version = {"name": name, "version": "1"}
    assert "GATE002" in refused("registered-models/alias", **version, alias="champion")
    stage = {"stage": "Production", "archive_existing_versions": False}
    assert "GATE002" in refused("model-versions/transition-stage", **version, **stage)
    facts = {"decision": "approve", "snapshot_id": "0" * 64, "manifest_sha256": "0" * 64}
    review = json.dumps({**facts, "reviewer": ADMIN[0], "at": datetime.now(UTC).isoformat()})
    for key, value in (
        ("review.theirs", review),
        ("promoted.champion", "{}"),
        ("status", "complete"),
        ("author", "x"),
    ):
        said = refused("model-versions/set-tag", **version, key=f"explain_step.{key}", value=value)
        assert "refused" in said
    every = {"username": READER[0], "resource_type": "registered_model", "resource_id": "*"}
    refused("users/permissions/grant", "/api/3.0/mlflow", **every, permission="MANAGE")
    refused("users/update-admin", method="PATCH", username=READER[0], is_admin=True)
    refused("users/update-password", method="PATCH", username=ADMIN[0], password="a long password 3")
    refused("users/create", username="admin ", password="a long password 3")


REVIEWED = "version: 1\nreviews: {approvals: 1, reviewers: [ann, bea], authenticated: true}\n"


@contextlib.contextmanager
def reviewed(server: Gated, world: World) -> Iterator[Callable[..., int]]:
    """Let ann, bea and mallory sign in, each with all permissions on a new model; yield what sends a review.

    The snapshot is that of the shared world, since reviews of one count wherever it is.
    """
    for who in ("ann", "bea", "mallory"):
        server.api("POST", "users/create", username=who, password=READER[1])
    manifest = (world.good.evidence / "manifest.json").read_bytes()
    facts = {"snapshot_id": world.good.snapshot_id, "manifest_sha256": hashlib.sha256(manifest).hexdigest()}

    def review(who: str, decision: str, *, name: str, key: str | None = None) -> int:
        at = datetime.now(UTC).isoformat()
        value = json.dumps({**facts, "reviewer": who, "decision": decision, "at": at, "note": "seen"})
        body = {"name": name, "version": "1", "key": key or review_tag(who), "value": value}
        return call(server, who, "model-versions/set-tag", **body).status_code

    server.policy.write_text(REVIEWED)
    try:
        yield review
    finally:
        server.policy.write_text(POLICY)


def call(server: Gated, who: str, path: str, **body: Any) -> Any:
    return server.request("POST", f"/api/2.0/mlflow/{path}", json=body, auth=(who, READER[1]))


def owned(server: Gated, world: World, name: str) -> None:
    """Register the explained model under a name on which everybody has all permissions."""
    source = {"source": f"models:/{world.good.model_id}", "model_id": world.good.model_id}
    assert server.api("POST", "registered-models/create", name=name).status_code == 200
    assert server.api("POST", "model-versions/create", name=name, **source).status_code == 200
    for who in ("ann", "bea", "mallory"):
        grant = {"username": who, "resource_type": "registered_model", "resource_id": name}
        path = "/api/3.0/mlflow/users/permissions/grant"
        assert server.request("POST", path, json={**grant, "permission": "MANAGE"}).status_code == 200


def champion(server: Gated, name: str, version: str) -> str:
    body = {"name": name, "alias": "champion", "version": version}
    answer = call(server, "mallory", "registered-models/alias", **body)
    return "" if answer.status_code == 200 else str(answer.json()["message"])


def test_nobody_keeps_out_the_review_of_somebody_else(with_auth: tuple[Gated, str], world: World) -> None:
    server, _ = with_auth
    with reviewed(server, world) as review:
        owned(server, world, "squatted")
        assert review("mallory", "approve", name="squatted", key=review_tag("ann")) == 403
        assert review("bea", "approve", name="squatted") == 200
        assert review("ann", "reject", name="squatted") == 200
        assert "`ann` rejects" in champion(server, "squatted", "1")
        assert review("ann", "approve", name="squatted") == 200
        assert champion(server, "squatted", "1") == ""


def test_a_copy_does_not_leave_a_rejection_behind(with_auth: tuple[Gated, str], world: World) -> None:
    server, _ = with_auth

    def copy(tags: list[dict[str, str]]) -> tuple[str, dict[str, str]]:
        body = {"name": "copied", "source": "models:/copied/1", "tags": tags}
        made = call(server, "mallory", "model-versions/create", **body)
        version = made.json()["model_version"]
        return str(version["version"]), {tag["key"]: tag["value"] for tag in version.get("tags", ())}

    with reviewed(server, world) as review:
        owned(server, world, "copied")
        assert review("bea", "approve", name="copied") == 200
        before, tags = copy([])
        assert "bea" in tags[review_tag("bea")]
        assert review("ann", "reject", name="copied") == 200
        after, tags = copy([{"key": key, "value": value} for key, value in tags.items()])
        assert "reject" in tags[review_tag("ann")]
        for version in (before, after):
            assert "`ann` rejects" in champion(server, "copied", version)


def test_gunicorn_with_two_workers(world: World, tmp_path: Path) -> None:
    name, _ = unexplained(world)
    folder = copied(world, tmp_path)
    options = ("--gunicorn-opts", "--timeout 120")
    with server_kit.serving(folder, *options, policy="version: 1\n", workers=2) as server:
        with ThreadPoolExecutor(8) as pool:
            refused = list(pool.map(lambda _: server.alias(name, "1").status_code, range(16)))
            healthy = list(pool.map(lambda _: server.request("GET", "/explain-step/health").json(), range(8)))
        assert set(refused) == {403}
        assert all(facts["active"] and facts["artifacts"] == "sealed" for facts in healthy)
        assert server.alias("mortgage", "1").status_code == 200
        assert server.put(f"{world.good.path}/MLmodel").status_code == 403
        assert server.delete(world.good.path).status_code == 403
        assert server.api("POST", "runs/delete", run_id=world.good.run_id).status_code == 403
    records = [json.loads(line) for line in server.audit.read_text().splitlines()]
    assert sum(record["outcome"] == "refuse" for record in records) >= 19


def test_the_gate_on_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    import tracking_kit
    from gate_kit import log_explained
    from mlflow import MlflowClient

    database = postgres.database("gated")
    with server_kit.serving(tmp_path, policy="version: 1\n", database=database, workers=2) as server:
        client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
        experiment_id = client.create_experiment("postgresql")
        with contextlib.chdir(tmp_path), tracking_kit.current_store(server.url, experiment_id):
            logged = log_explained(server.url, "mortgage")
        bare = client.create_logged_model(experiment_id)
        body = {"name": "mortgage", "source": f"models:/{bare.model_id}", "model_id": bare.model_id}
        assert server.api("POST", "model-versions/create", **body).status_code == 200
        with ThreadPoolExecutor(20) as pool:
            answers = list(
                pool.map(lambda n: server.alias("mortgage", str(n % 2 + 1)).status_code, range(40))
            )
        assert answers == [200, 403] * 20
        # records of promotions at once stand one after the other, whichever worker takes them
        uri = "models:/mortgage/1"
        with ThreadPoolExecutor(6) as pool:
            told = list(
                pool.map(lambda _: explain_step.promote(uri, "champion", tracking_uri=server.url), range(6))
            )
        assert all(one.allowed for one in told)
        log = decisions_of(uri, tracking_uri=server.url)
        assert (len(log.entries), log.breaks) == (6, ())
        assert server.api("POST", "runs/delete", run_id=logged.run_id).status_code == 403
        held = server.api("DELETE", f"logged-models/{logged.model_id}", model_id=logged.model_id)
        assert held.status_code == 403
        assert server.api("POST", "experiments/delete", experiment_id=experiment_id).status_code == 403
        rename = {"name": "mortgage", "new_name": "other"}
        assert server.api("POST", "registered-models/rename", **rename).status_code == 403
        assert server.request("GET", "/explain-step/health").json()["active"] is True
