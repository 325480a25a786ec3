"""Attacks on what a policy measures or excuses by a name, on what a champion hangs on, and on the reader itself."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import tracking_kit
from gate_kit import GATE_POLICY, explained_in

if TYPE_CHECKING:
    from gate_kit import Version, World

pytestmark = [pytest.mark.slow, tracking_kit.server_gate]
DRIFT = "drift: {alias: champion, max_share_change: 0.2}\n"


def fresh(prefix: str = "names") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@contextlib.contextmanager
def policy(world: World, more: str) -> Iterator[None]:
    """Add a few lines to the policy of the server for a while."""
    world.server.policy.write_text(GATE_POLICY + more)
    try:
        yield
    finally:
        world.server.policy.write_text(GATE_POLICY)


def take_away(world: World, name: str, alias: str = "champion") -> int:
    return world.server.api("DELETE", "registered-models/alias", name=name, alias=alias).status_code


# -- the base of drift ---------------------------------------------------------------------------------------


def test_the_base_of_drift_is_moved_and_never_taken_away(world: World) -> None:
    name = fresh("drift")
    version = world.another_version(name)
    with policy(world, DRIFT):
        assert world.server.alias(name, version).status_code == 200
        assert take_away(world, name) == 403
        assert world.aliases(name) == {"champion": version}
        assert world.server.alias(name, world.another_version(name)).status_code == 200  # moved
        world.server.alias(name, version, alias="dev")
        assert take_away(world, name, "dev") == 200
    assert take_away(world, name) == 200  # without a bound on drift nothing hangs on it


def test_a_champion_that_has_lost_its_evidence_may_go(world: World) -> None:
    name = fresh("drift")
    assert world.server.alias(name, world.another_version(name)).status_code == 200
    with policy(world, DRIFT), world.changed(world.good.folder / "MLmodel") as file:
        file.write_text("flavors: {}")
        assert take_away(world, name) == 200


def test_a_champion_that_would_not_be_promoted_today_has_not_lost_its_evidence(world: World) -> None:
    name = fresh("drift")
    version = world.another_version(name)
    assert world.server.alias(name, version).status_code == 200
    with policy(world, f"{DRIFT}reviews: {{approvals: 9}}\n"):
        assert take_away(world, name) == 403
    assert world.aliases(name) == {"champion": version}


def test_a_base_of_drift_goes_by_break_glass(world: World) -> None:
    name = fresh("drift")
    version = world.another_version(name)
    assert world.server.alias(name, version).status_code == 200
    with policy(world, f"{DRIFT}break_glass: {{allowed: true}}\n"):
        assert take_away(world, name) == 403
        expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        use = json.dumps({"owner": "ann", "reason": "the model is withdrawn", "expires": expires})
        tag = {"name": name, "version": version, "key": "explain_step.break_glass", "value": use}
        assert world.server.api("POST", "model-versions/set-tag", **tag).status_code == 200
        assert take_away(world, name) == 200
    assert world.aliases(name) == {}


def test_an_alias_stays_where_the_policy_cannot_be_read(world: World) -> None:
    name = fresh("drift")
    version = world.another_version(name)
    assert world.server.alias(name, version).status_code == 200
    with policy(world, "unknown: key\n"):
        assert take_away(world, name) == 403
    assert world.aliases(name) == {"champion": version}
    assert take_away(world, name) == 200


# -- a waiver that another model would inherit ------------------------------------------------------------------


def waived(name: str, *, version: str = "1") -> str:
    days = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    return (
        f"assertions: [{{features: [debt], forbidden: true}}]\n"
        f"waivers: [{{rules: GATE030, registered_model: {name}, version: '{version}', owner: ann, reason: agreed, "
        f"expires: {days}}}]\n"
    )


def test_nobody_inherits_a_waiver(world: World) -> None:
    name = fresh("waived")
    version = world.another_version(name)
    with policy(world, waived(name)):
        for path, method, body in (
            ("registered-models/delete", "DELETE", {"name": name}),
            ("registered-models/rename", "POST", {"name": name, "new_name": fresh()}),
            ("registered-models/rename", "POST", {"name": name, "new_name": name.upper()}),
        ):
            answer = world.server.api(method, path, **body)
            assert answer.status_code == 403, (path, body)
            assert "would inherit the waiver" in answer.json()["message"]
        other = fresh("other")
        world.registered(other)
        onto = world.server.api("POST", "registered-models/rename", name=other, new_name=f"{name} ")
        assert onto.status_code == 403
        shouted = world.another_version(
            name.upper()
        )  # a registered model of its own, with a version 1 of its own
        assert world.server.alias(name.upper(), shouted).status_code == 403
        assert world.server.alias(name, version).status_code == 200
    assert take_away(world, name) == 200
    assert world.server.api("DELETE", "registered-models/delete", name=name).status_code == 200


# -- what `mlflow gc` removes for good ----------------------------------------------------------------------------


def test_a_model_of_a_deleted_experiment_is_not_promoted(world: World) -> None:
    # an experiment of its own: other tests leave champions in the shared one, which is then not to be deleted
    world = explained_in(fresh("experiment"), world.server, world.client, name=fresh("explained"))
    good = world.good
    name = fresh("gone")
    version = world.another_version(name)
    experiment = {"experiment_id": world.experiment_id}
    assert world.server.api("POST", "experiments/delete", **experiment).status_code == 200
    try:
        refused = world.server.alias(name, version)
        assert refused.status_code == 403
        assert "is deleted; restore it first" in refused.json()["message"]
        world.registered("prod.gone")
        body = {"name": "prod.gone", "source": f"models:/{good.model_id}", "model_id": good.model_id}
        entered = world.server.api("POST", "model-versions/create", **body)
        assert entered.status_code == 403, entered.text
        assert "is deleted; restore it first" in entered.json()["message"]
    finally:
        assert world.server.api("POST", "experiments/restore", **experiment).status_code == 200
        world.server.api("POST", "runs/restore", run_id=good.run_id)
    assert world.server.alias(name, version).status_code == 200
    assert take_away(world, name) == 200


# -- files that a reader chokes on ----------------------------------------------------------------------------------


def bomb(kind: str) -> bytes:
    """Return an MLmodel file of a few hundred bytes that stands for more than any memory holds."""
    if kind == "merged":
        lines = ["a0: &a0 {k: v}"]
        lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
        return "\n".join([*lines, "flavors: {}"]).encode()
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    flavors = (
        "{sklearn: {pickled_model: *a11}, python_function: {loader_module: mlflow.sklearn, model_path: m}}"
    )
    if kind == "loader":
        flavors = "{sklearn: {pickled_model: m}, python_function: {loader_module: *a11}}"
    return "\n".join([*lines, f"flavors: {flavors}"]).encode()


@pytest.mark.parametrize("kind", ["merged", "file", "loader", "deep"])
def test_an_mlmodel_that_stands_for_billions_costs_nothing(world: World, kind: str) -> None:
    content = b"flavors: " + b"[" * 200_000 if kind == "deep" else bomb(kind)
    version = world.unexplained(fresh("bomb"), files={"MLmodel": content})
    refused = world.server.alias(version.name, version.version)
    assert refused.status_code == 403
    assert "is not explained" in refused.json()["message"]


# -- a finished model without an MLmodel file -------------------------------------------------------------------


def test_a_hollow_model_that_was_promoted_by_break_glass_is_sealed(world: World) -> None:
    hollow: Version = world.unexplained(fresh("hollow"), files={"weights.bin": b"w"})
    assert world.server.put(f"{hollow.path}/weights.bin", b"still open").status_code == 200
    with policy(world, "break_glass: {allowed: true}\n"):
        expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        use = json.dumps({"owner": "ann", "reason": "an emergency", "expires": expires})
        tag = {
            "name": hollow.name,
            "version": hollow.version,
            "key": "explain_step.break_glass",
            "value": use,
        }
        assert world.server.api("POST", "model-versions/set-tag", **tag).status_code == 200
        assert world.server.alias(hollow.name, hollow.version).status_code == 200
    for file in ("weights.bin", "MLmodel"):
        assert world.server.put(f"{hollow.path}/{file}").status_code == 403
    assert world.server.delete(f"{hollow.path}/weights.bin").status_code == 403
    assert take_away(world, hollow.name) == 200


@pytest.mark.parametrize(
    "alias",
    [
        *("champi\u00f8n", "champ\u0131on", "CHAMP\u0131\u00f8n", "champion\u3164"),
        *("\u0441hampion", "ch\u0430mpi\u043en", "\u0421H\u0410MPI\u039fN", "champi\u1d0f\u0274"),
    ],
)
def test_letters_that_a_collation_or_a_reader_takes_for_others(world: World, alias: str) -> None:
    """The second row is Cyrillic, Greek and small capitals: drawn as the protected name."""
    bad = world.unexplained(fresh("letters"))
    assert world.server.alias(bad.name, bad.version, alias=alias).status_code == 403


def test_an_alias_in_another_script_is_another_alias(world: World) -> None:
    bad = world.unexplained(fresh("script"))
    for alias in ("\u0447\u0435\u043c\u043f\u0438\u043e\u043d", "champ1on"):
        assert world.server.alias(bad.name, bad.version, alias=alias).status_code == 200


def test_spellings_of_an_experiment(world: World) -> None:
    """MLflow reads the number of an experiment as Python does: ``01`` is deleted as ``1`` is, with its runs and models."""
    name = fresh()
    kept = explained_in(name, world.server, world.client, name=name)
    assert world.server.alias(name, "1").status_code == 200
    number = kept.experiment_id
    wide = "".join(chr(ord(digit) + 0xFEE0) for digit in number)
    for spelled in (number, f"0{number}", f" {number}", f"{number} ", f"+{number}", f"0_{number}", wide):
        answer = world.server.api("POST", "experiments/delete", experiment_id=spelled)
        assert answer.status_code in (400, 403, 404), (spelled, answer.text)
        assert world.client.get_experiment(number).lifecycle_stage == "active", spelled
        assert world.client.get_run(kept.good.run_id).info.lifecycle_stage == "active", spelled
    refused = world.server.api("POST", "experiments/delete", experiment_id=f"0{number}")
    assert (refused.status_code, "has the protected alias" in refused.text) == (403, True), refused.text


def test_letters_that_fold_to_others_and_sources_that_end_elsewhere(world: World) -> None:
    """Long s, the sign for kelvin, dotted and dotless i; a source with ``..``, a fragment or a query."""
    bad = world.unexplained(fresh())
    for alias in ("live-\u017f", "l\u0130ve-x", "l\u0131ve-x", "live\uff0dx", "champion\n", "\ufeffchampion"):
        assert world.server.alias(bad.name, bad.version, alias).status_code == 403, alias
    target = f"prod.{fresh()}"
    world.registered(target)
    good, other = world.good.model_id, bad.model_id
    sources = (
        f"models:/{good}#/../{other}",
        f"models:/{good}?x=models:/{other}",
        f"models:/{other}/../{good}",
    )
    for source in (*sources, f"models:/{bad.name}/01", f"models://{bad.name}/1", f"Models:/{bad.name}/1"):
        made = world.server.api(
            "POST", "model-versions/create", name=target, source=source, run_id=world.good.run_id
        )
        assert made.status_code in (400, 403), (source, made.text)
    body = {"name": bad.name, "alias": "champion", "version": bad.version}
    path = "/api/2.0/mlflow/registered-models/alias"
    query = f"{path}?name={bad.name}&alias=champion&version={bad.version}"
    override = {"X-HTTP-Method-Override": "POST"}
    twice = f'{{"name":"{bad.name}","alias":"dev","alias":"champion","version":"{bad.version}"}}'
    json_type = {"Content-Type": "application/json"}
    for method, where, settings in (
        ("GET", query, {"headers": override}),
        ("PUT", path, {"json": body}),
        ("POST", query, {}),
        ("POST", path, {"data": twice, "headers": json_type}),
        ("POST", path, {"data": (part for part in (twice[:9].encode(), twice[9:].encode()))}),
    ):
        assert world.server.request(method, where, **settings).status_code in (400, 403, 405), (method, where)
    assert world.aliases(bad.name) == {}
