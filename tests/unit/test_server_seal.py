"""Which paths are sealed, on a store that is a dictionary."""

from __future__ import annotations

import pytest

from explain_step.server.places import nested
from explain_step.server.seal import Owner, Sealer, Spot, in_trace, readings, spots
from explain_step.server.settings import Deployment

READY, PENDING, GONE, DRAFT = ("m-" + c * 32 for c in "abcd")
RUN_ID, GONE_RUN = "e" * 32, "9" * 32
ID, OPEN = "1" * 64, "2" * 64
OWNERS = {
    READY: Owner(known=True, ready=True),
    PENDING: Owner(known=True),
    GONE: Owner(known=True, deleted=True),
    DRAFT: Owner(known=True),
    RUN_ID: Owner(known=True),
    GONE_RUN: Owner(known=True, deleted=True),
}
FILES = {
    f"1/models/{model}/artifacts/{name}"
    for model in (READY, PENDING, GONE)
    for name in (
        "MLmodel",
        f"explanations/{ID}/manifest.json",
        f"explanations/{OPEN}/card.md",
        "explanations/decisions/a.json",
        f"explanations/{ID}/signatures/k.json",
    )
} | {
    f"1/{RUN_ID}/artifacts/explanations/{ID}/manifest.json",
    f"1/{RUN_ID}/artifacts/plot.png",
    f"1/models/{DRAFT}/artifacts/explanations/{OPEN}/card.md",
    f"1/models/{DRAFT}/artifacts/explanations/note.txt",
    "other/file.txt",
}


def children(folder: str) -> dict[str, bool]:
    inside = [file[len(folder) + 1 :] for file in FILES if file.startswith(f"{folder}/")]
    return {name.split("/")[0]: "/" in name for name in inside}


def owner(spot: Spot) -> Owner:
    return OWNERS.get(f"m-{spot.id}" if spot.owner == "model" else spot.id, Owner(known=False))


def sealed(path: str, act: str = "write") -> bool:
    return Sealer(owner, children).problem(path, "delete" if act == "delete" else "write") is not None


@pytest.mark.parametrize(
    ("path", "write", "delete"),
    [
        ("{ready}/MLmodel", True, True),
        ("{ready}/new.py", True, True),
        ("{ready}", True, True),
        ("{ready}/explanations", False, True),
        ("{ready}/explanations/{id}/card.md", True, True),
        ("{ready}/explanations/{id}/signatures/new.json", False, True),
        ("{ready}/explanations/{id}/signatures/k.json", True, True),
        ("{ready}/explanations/{id}/signatures/a/b.json", True, True),
        ("{ready}/explanations/{open}/card.md", False, False),
        ("{ready}/explanations/{open}/manifest.json", False, False),
        ("{ready}/explanations/decisions/a.json", True, True),
        ("{ready}/explanations/decisions/b.json", False, True),
        ("{ready}/explanations/decisions/b/c.json", True, True),
        ("{ready}/explanations/report.html", True, False),
        ("{ready}/explanations/notes/x.txt", True, False),
        ("{pending}/explanations/report.html", False, False),
        ("{ready}/Explanations/x", True, True),
        ("{ready}/explanations/../MLmodel", True, True),
        ("{ready}/explanations\\..\\MLmodel", True, True),
        ("{ready}/explanations/%252e%252e/MLmodel", True, True),
        ("{ready}/explanations./x", True, True),
        ("{pending}/MLmodel", False, False),
        ("{pending}/explanations/{id}/card.md", True, True),
        ("{gone}/MLmodel", True, False),
        ("{gone}", True, False),
        ("{unknown}/MLmodel", True, True),
        ("{draft}/explanations", False, False),  # nothing in it is finished
        ("{draft}", False, False),
        ("1/{gone_run}/artifacts/plot.png", False, False),
        ("1/{run}/artifacts/plot.png", False, False),
        ("1/{run}/artifacts", False, True),
        ("1/{run}/artifacts/explanations/report.html", False, False),
        ("1/{run}/artifacts/explanations/{id}/manifest.json", True, True),
        ("1/{run}/artifacts/{ready}/MLmodel", False, False),
        ("other/file.txt", False, False),
        ("other", False, True),
        ("1/models", False, True),
        ("1", False, True),
        ("1/traces/tr-1/artifacts/traces.json", False, False),
    ],
)
def test_what_is_sealed(path: str, write: bool, delete: bool) -> None:
    roots = {
        name: f"1/models/{model}/artifacts"
        for name, model in (("ready", READY), ("pending", PENDING), ("gone", GONE), ("draft", DRAFT))
    }
    unknown = f"1/models/m-{'f' * 32}/artifacts"
    text = path.format(**roots, unknown=unknown, id=ID, open=OPEN, run=RUN_ID, gone_run=GONE_RUN)
    assert (sealed(text), sealed(text, "delete")) == (write, delete)


def test_a_run_behind_a_protected_version_is_sealed() -> None:
    held = Sealer(lambda _: Owner(known=True, held="models:/a/1 has the alias"), children)
    assert "models:/a/1" in str(held.problem(f"1/{RUN_ID}/artifacts/model/MLmodel", "write"))


def test_what_was_proven_or_promoted_while_a_file_was_written() -> None:
    path = f"1/models/{READY}/artifacts/MLmodel"
    for owner, expected in (
        (Owner(known=True), None),
        (Owner(known=True, ready=True), f"logged model {READY} is finished and explained"),
        (Owner(known=True, held="models:/a/1 has the alias"), "models:/a/1 has the alias"),
    ):
        assert Sealer(lambda _, owner=owner: owner, children).overtaken(path) == expected  # type: ignore[misc]
    bare = Sealer(lambda _: Owner(known=True, ready=True), lambda _: {})
    assert bare.overtaken(path) is None  # finished, and nobody has explained it yet
    assert bare.overtaken(f"1/models/{READY}/artifacts/explanations/{ID}/card.md") is None
    assert bare.overtaken("other/file.txt") is None


def test_an_owner_that_cannot_be_asked_for_is_not_taken_as_open() -> None:
    def fails(spot: Spot) -> Owner:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Sealer(fails, children).problem(f"1/models/{READY}/artifacts/MLmodel", "write")


@pytest.mark.parametrize(
    "location",
    [
        "abfss://models@account.dfs.core.windows.net/mlflow/7",
        "abfs://Models@account.DFS.core.windows.net/mlflow",
        "wasb://models@account.blob.core.windows.net/mlflow/%37",
        "wasbs://models@account.blob.core.windows.net//mlflow/x/../7",
    ],
)
def test_another_interface_to_the_same_files_is_the_sealed_store(location: str) -> None:
    own = Deployment(
        registry_uri="explain-gate+sqlite:///m.db",
        backend_uri="sqlite:///m.db",
        destination="explain-gate+wasbs://models@account.blob.core.windows.net/mlflow",
        serves_artifacts=True,
        artifacts_only=False,
    )
    assert nested(location, deployment=own) is not None
    assert nested(location.replace("account", "another"), deployment=own) is None
    assert nested("abfss://models@account.dfs.core.windows.net/other", deployment=own) is None


def test_readings_and_spots() -> None:
    assert "1/a" in readings("1/%2561")
    assert [s.inside for s in spots(f"x/{READY}/artifacts/a/{PENDING}/artifacts/b")] == [
        f"a/{PENDING}/artifacts/b",
        "b",
    ]
    assert not list(spots(f"1/{RUN_ID}x/artifacts/a"))
    assert in_trace("1/traces/tr-1/artifacts")
    assert not in_trace("1/traces/tr-1/artifacts-x")
