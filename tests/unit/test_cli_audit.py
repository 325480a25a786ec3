"""The command ``audit``: usage, text, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from audit_kit import train
from tracking_kit import Store

from explain_step import cli, cli_audit
from explain_step.tracking.audit_rows import TITLES

POLICY = '{"version": 1, "require": {"sections": ["importance"], "binding": "declared"}}'


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    policy = tmp_path / "policy.json"
    policy.write_text(POLICY, encoding="utf-8")

    def invoke(store: Store, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.invoke(["audit", *arguments, "--policy", str(policy), "--tracking-uri", store.uri])
        return code, *capsys.readouterr()

    return invoke


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Say what to audit"),
        (["--all", "--experiment", "x"], "Say what to audit"),
        (["--all", "--fail-runs"], "--fail-runs needs --mark"),
        (["--experiment", "nope"], "there is no 'nope'"),
        (["--registered-model", "nope"], "there is no 'nope'"),
    ],
)
def test_wrong_usage(run: Any, store: Store, arguments: list[str], told: str) -> None:
    code, out, err = run(store, *arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_nothing_there_is_nothing_wrong(run: Any, store: Store) -> None:
    assert run(store, "--all", "--fail") == (0, "", "")


def test_text_json_and_exit_codes(run: Any, active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, registered="mortgage", explained=False)
    active_store.client.set_registered_model_alias("mortgage", "champion", "1")
    code, out, err = run(active_store, "--all")
    assert (code, err) == (0, "")
    assert f"AUD001  run {made.run_id}  incomplete (tag: none)" in out
    assert "AUD004 AUD016  alias models:/mortgage@champion  incomplete (tag: none)" in out
    assert "\nrun              1 incomplete\n" in out
    assert run(active_store, "--all", "--fail")[0] == 1
    code, out, _ = run(active_store, "--experiment", "tests", "--json", "--fail", "--full")
    said = json.loads(out)
    assert (code, said["exit_code"]) == (1, 1)
    assert said["counts"]["version"] == {"incomplete": 1}
    alias = next(o for o in said["objects"] if o["kind"] == "alias")
    assert (alias["codes"], alias["verdict"], alias["snapshot_id"]) == ("AUD004 AUD016", "fail", None)


@pytest.mark.parametrize(
    "evil", ["\x1b[2J\x1b[31mall is well", "\x9b2J", "complete\u202e", "a\nAUD000  forged line"]
)
def test_no_tag_and_no_name_steers_the_terminal(
    run: Any, active_store: Store, tmp_path: Path, evil: str
) -> None:
    made = train(active_store, tmp_path, explained=False)
    active_store.client.set_tag(made.run_id, "explain_step.status", evil)
    for arguments in (
        ["--all", "--verbose"],
        ["--all", "--json"],
        ["--experiment", evil],
        ["--experiment", evil, "--json"],
    ):
        _, out, err = run(active_store, *arguments)
        assert not [c for c in out + err if not c.isprintable() and c != "\n"], arguments
        assert not [line for line in out.splitlines() if line.startswith("AUD000")]
        if "--json" in arguments and "--all" in arguments:
            found = json.loads(out)["objects"]
            assert next(o for o in found if o["kind"] == "run")["tag_status"] == evil


def test_mark_and_dry_run(run: Any, active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path, explained=False)
    tags = active_store.client.get_run(made.run_id).data.tags
    _, out, _ = run(active_store, "--all", "--mark", "--fail-runs", "--dry-run")
    assert "would set status = incomplete, run status = FAILED" in out
    assert active_store.client.get_run(made.run_id).data.tags == tags
    _, out, _ = run(active_store, "--all", "--mark", "--fail-runs")
    assert "set status = incomplete, run status = FAILED" in out
    assert active_store.client.get_run(made.run_id).info.status == "FAILED"


def test_what_cannot_be_read_is_undecided(run: Any, active_store: Store, tmp_path: Path) -> None:
    made = train(active_store, tmp_path)
    made.place.rename(tmp_path / "away")
    code, out, _ = run(active_store, "--all", "--fail")
    assert code == 3
    assert "AUD013" in out


def test_long_lists_are_cut(
    run: Any, active_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_audit, "SHOWN", 1)
    train(active_store, tmp_path, explained=False)
    assert "… and 1 more" in run(active_store, "--all")[1]
    assert "more" not in run(active_store, "--all", "--verbose")[1]


def test_a_server_that_is_not_there_is_undecided(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert cli.invoke(["audit", "--all", "--tracking-uri", "http://127.0.0.1:9"]) == 3


def test_every_code_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `AUD")]
    assert [line.split("`")[1] for line in lines] == list(TITLES)
    for line in lines:
        assert f"| {TITLES[line.split('`')[1]]} |" in line
