"""The command line: output, JSON, exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import mlflow
import pandas as pd
import pytest
import requests
from snapshot_kit import copied, frame, importance, parts, subject
from tracking_kit import REQUIREMENTS, Store, fitted, log, rows

import explain_step
from explain_step import cli, errors
from explain_step.snapshot import read_directory, write
from explain_step.terminal import summary
from explain_step.types import Caveat

COMMANDS = sorted(cli.cli.commands)


@pytest.fixture
def place(tmp_path) -> Path:
    return copied(tmp_path / "snapshots")


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    mlflow.sklearn.save_model(fitted(), folder, serialization_format="skops", pip_requirements=REQUIREMENTS)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    X, y = rows(120, seed=1)
    path = tmp_path_factory.mktemp("data") / "test.csv"
    X.assign(deny=y, region=["n", "s"] * 60).to_csv(path, index=False)
    return path


def _run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.invoke([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- shape


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_tracking_uri_and_hyphens(command: str) -> None:
    options = [o for p in cli.cli.commands[command].params for o in p.opts if o.startswith("--")]
    assert {"--json", "--tracking-uri"} <= set(options)
    assert not [o for o in options if "_" in o]
    assert cli.cli.commands[command].help


def test_help_and_version_say_yes(capsys) -> None:
    code, out, _ = _run(capsys, "--help")
    assert code == 0
    assert re.findall(r"^  (\w+)  ", out.partition("Commands:")[2], flags=re.M) == COMMANDS
    assert {"run", "show", "verify", "gate", "promote", "review"} <= set(COMMANDS)
    assert _run(capsys, "--version")[0] == 0


def test_python_m_and_a_light_import() -> None:
    heavy = ["mlflow", "sklearn", "pandas", "numpy", "matplotlib", "shap"]
    text = f"import sys, explain_step.cli; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
    command = [sys.executable, "-m", "explain_step", "frobnicate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "No such command 'frobnicate'" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("x"), 2),
        (errors.MissingDependency("x"), 2),
        (click.UsageError("x"), 2),
        (errors.SnapshotError("x"), 1),
        (errors.BindingError("x"), 1),
        (errors.PredictionFailed("x"), 4),
        (errors.NotApplicable("x"), 4),
        (requests.exceptions.ConnectionError("x"), 3),
        (requests.exceptions.Timeout("x"), 3),
        (TimeoutError("x"), 3),
        (mlflow.MlflowException("API request to http://x/y failed with exception z"), 3),
        (mlflow.MlflowException("x"), 4),
        (RuntimeError("x"), 4),
        (OSError("x"), 4),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_errors_become_exit_codes_in_one_place(error: BaseException, code: int) -> None:
    assert cli.exit_code(error) == code


def test_a_database_that_does_not_answer_is_undecided() -> None:
    from sqlalchemy.exc import OperationalError, ProgrammingError

    assert cli.exit_code(OperationalError("x", None, Exception("gone"))) == 3
    assert cli.exit_code(ProgrammingError("x", None, Exception("bug"))) == 4


# --- verify


def test_verify_says_yes_for_a_snapshot_and_its_parent(capsys, place) -> None:
    for source in (place, place.parent):
        code, out, err = _run(capsys, "verify", source)
        assert (code, err) == (0, "")
        assert "VER000" in out
        assert "self-consistent only (L0)" in out


def test_verify_names_each_file_and_says_no(capsys, place) -> None:
    (place / "card.md").write_text("x")
    (place / "extra").write_text("x")
    code, out, _ = _run(capsys, "verify", place)
    assert code == 1
    assert "card.md was changed" in out
    assert "extra is an extra file" in out
    code, out, _ = _run(capsys, "verify", "--json", place)
    found = json.loads(out)
    assert (code, found["verified"]) == (1, False)
    assert [f["evidence"]["path"] for f in found["findings"]] == ["card.md", "extra"]


def test_verify_of_a_directory_without_a_manifest(capsys, place) -> None:
    (place / "manifest.json").unlink()
    code, out, _ = _run(capsys, "verify", place)
    assert code == 1
    assert "manifest.json is missing" in out
    code, _, err = _run(capsys, "verify", place / "none")
    assert code == 1
    assert "has no directory" in err


# --- show


@pytest.mark.parametrize("command", ["verify", "show", "replay", "export"])
@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_source_is_not_the_current_folder(capsys, place, monkeypatch, command, blank) -> None:
    monkeypatch.chdir(place)
    needed = ["--to", "x.zip"] if command == "export" else []
    assert cli.invoke([command, blank, *needed]) == 2
    assert "Argument source must be a snapshot directory" in capsys.readouterr().err
    with pytest.raises(errors.InvalidInput, match="Argument source"):
        explain_step.read(blank)


def test_show_is_a_readable_summary(capsys, place) -> None:
    code, out, err = _run(capsys, "show", place)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "degraded: segments: nothing to cut by"
    assert "Explains  the prediction of price for 30 rows" in out
    assert "against the explained rows themselves, exactly" in " ".join(out.split())
    (leader,) = [line for line in lines if "income" in line]
    assert leader.split() == ["1-2", "income", "0.800", "0.700", "to", "0.900", "80%"]
    assert "- There are few rows." in out


def test_show_lists_the_largest_first_as_the_page_does(capsys, tmp_path) -> None:
    """An effect of a few rows may have the better rank interval and the smaller mean."""
    table = importance(("sure", "spread"))
    table = table.assign(rank=[2, 1], rank_low=[2, 1], rank_high=[2, 2])
    shot = write(tmp_path, parts=parts(table=table))
    text = summary(shot)
    assert text.index(" sure ") < text.index(" spread ")
    _, out, _ = _run(capsys, "show", shot.path, "--json")
    assert [row["feature"] for row in json.loads(out)["importance"]] == ["sure", "spread"]


def test_show_wraps_prose_at_80_columns(place) -> None:
    shot = read_directory(place)
    long = Caveat(
        code="long", section="data", message="a caveat of very many words " * 9 + "`one-hyphenated-name`"
    )
    text = summary(replace(shot, caveats=(long,), reason="a reason of very many words " * 9))
    prose = text[text.index("Caveats") :].splitlines() + text[: text.index("Snapshot")].splitlines()
    assert max(map(len, prose)) <= 80
    assert "\n    " in text[text.index("Caveats") :]
    assert " ".join(text[text.index("Caveats\n  - ") + 12 :].split()) == long.message
    assert "`one-hyphenated-name`" in text


def test_show_as_json_is_the_summary(capsys, place) -> None:
    code, out, _ = _run(capsys, "show", place, "--json", "--top", "1")
    found = json.loads(out)
    assert code == 0
    assert [row["feature"] for row in found["importance"]] == ["income"]
    stored = json.loads((place / "summary.json").read_text())
    assert {k: found[k] for k in stored if k != "importance"} == {
        k: v for k, v in stored.items() if k != "importance"
    }


def test_show_of_nothing_says_no_in_both_forms(capsys, tmp_path) -> None:
    code, out, err = _run(capsys, "show", tmp_path)
    assert (code, out) == (1, "")
    assert "no manifest.json in it" in err
    code, out, _ = _run(capsys, "show", tmp_path, "--json")
    assert (code, json.loads(out)["error"], json.loads(out)["exit_code"]) == (1, "SnapshotError", 1)


def test_names_from_data_cannot_steer_the_terminal(tmp_path) -> None:
    names = ("\x1b[31mred\x07", "a\nb\r\tc", "\u202eevil", "x" * 300)
    X = frame(5)
    shot = write(tmp_path, parts=parts(subject=subject(X), table=importance(names), reason="a\x1b[2Jb"))
    text = summary(shot)
    assert not [c for c in text if ord(c) < 32 and c != "\n"]
    assert "\u202e" not in text
    assert "x" * 39 + "\u2026" in text
    assert max(map(len, text.splitlines())) < 200


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_honoured_on_a_terminal(place, no_color) -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(cli.cli, ["verify", str(place)], color=True, env={"NO_COLOR": no_color})
    assert "VER000" in result.output
    assert ("\x1b[" in result.output) is not bool(no_color)


# --- run


def test_run_explains_a_model_directory(capsys, model_directory, data, tmp_path) -> None:
    out_dir = tmp_path / "kept"
    arguments = ["run", model_directory, data, "--target", "deny", "--segments", "region, debt < 0"]
    code, out, err = _run(capsys, *arguments, "--output-dir", out_dir, "--seed", 3)
    assert code == 0, err
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    shot = read_directory(facts["directory"])
    assert f"{shot.status}:" in facts
    assert shot.id == facts["snapshot"]
    assert shot.path.parent == out_dir
    assert shot.manifest["config"]["segments"] == ["region", "debt < 0"]
    assert shot.manifest["config"]["seed"] == 3
    assert set(shot.tables["importance"]["feature"]) == {"income", "debt", "age"}
    assert _run(capsys, "verify", out_dir)[0] == 0
    assert _run(capsys, "show", out_dir)[0] == 0


def test_run_asks_for_the_other_quantity_and_passes_on_why_there_is_none(
    capsys, model_directory, data, tmp_path
) -> None:
    command = ["run", model_directory, data, "--output-dir", tmp_path, "--feature-perturbation"]
    code, _, err = _run(capsys, *command, "correlation_dependent")
    assert code == 2
    assert "feature_perturbation must be 'interventional' for this model" in err
    code, out, err = _run(capsys, *command, "correlation_dependent", "--output", "margin", "--target", "deny")
    assert code == 0, err
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    said = read_directory(facts["directory"]).manifest["quantity"]
    assert said["feature_perturbation"] == "correlation_dependent"


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_stored(
    capsys, active_store: Store, data, tmp_path
) -> None:
    with mlflow.start_run():
        log(fitted(), registered="mortgage")
    (tmp_path / "file").write_text("")
    command = ["run", "models:/mortgage/1", data, "--target", "deny", "--tracking-uri", active_store.uri]
    code, _, err = _run(capsys, *command, "--output-dir", tmp_path / "file" / "kept")
    assert code == 2
    assert "--output-dir must be a folder that can be written" in err
    assert _run(capsys, "show", "models:/mortgage/1", "--tracking-uri", active_store.uri)[0] == 1


def test_run_logs_a_registered_version_and_reads_it_back(capsys, active_store: Store, data, tmp_path) -> None:
    with mlflow.start_run():
        log(fitted(), registered="mortgage")
    mlflow.set_tracking_uri(None)  # the option alone has to be enough
    uri = ["--tracking-uri", active_store.uri]
    kept = tmp_path / "kept"
    command = ["run", "models:/mortgage/1", data, "--target", "deny", "--segments", "", "--json"]
    code, out, err = _run(capsys, *command, *uri, "--output-dir", kept)
    facts = json.loads(out)
    assert code == 0, err
    assert facts["versions"] == [["mortgage", "1"]]
    assert Path(facts["path"]).parent == kept
    assert _run(capsys, "verify", kept)[0] == 0
    code, out, _ = _run(capsys, "verify", "models:/mortgage/1", *uri, "--json")
    assert (code, json.loads(out)["verified"]) == (0, True)
    code, out, _ = _run(capsys, "show", f"runs:/{facts['run_id']}", *uri, "--json")
    assert (code, json.loads(out)["snapshot_id"]) == (0, facts["snapshot_id"])
    assert json.loads(out)["model"]["version"] == "1"
    left = [p for p in Path("/tmp").glob("explain_step_fetched_*") if p.stat().st_uid == os.getuid()]
    assert not left


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "Missing argument 'MODEL'"),
        (["run", "{model}"], "Missing argument 'DATA'"),
        (["run", "{model}", "/no/data.csv"], "does not exist"),
        (["run", "/no/model", "{data}"], "MODEL must be models:/"),
        (["run", "{model}", "{data}", "--output", "odds"], "'odds' is not one of"),
        (["run", "{model}", "{data}", "--max-rows", "0"], "0 is not in the range"),
        (["run", "{model}", "{data}", "--run-id", "x"], "--run-id needs a model in MLflow"),
        (["run", "{model}", "{data}", "--target", "nope"], "nope"),
        (["run", "{model}", "{data}", "--budget", "soon"], "budget"),
        (["show"], "Missing argument 'SOURCE'"),
        (["verify", "x", "--frob"], "No such option"),
    ],
)
def test_wrong_usage_is_two_with_the_reason(capsys, model_directory, data, arguments, words) -> None:
    names = {"{model}": str(model_directory), "{data}": str(data)}
    given = [names.get(a, a) for a in arguments]
    code, out, err = _run(capsys, *given)
    assert (code, out) == (2, "")
    assert words in err


def test_a_server_that_does_not_answer_is_undecided(data) -> None:
    environment = {**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    command = [
        sys.executable,
        "-m",
        "explain_step",
        "verify",
        "models:/m/1",
        "--tracking-uri",
        "http://127.0.0.1:9",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert "127.0.0.1" in done.stderr


def test_a_model_that_fails_is_four_and_verbose_says_where(capsys, model_directory, data, tmp_path) -> None:
    broken = tmp_path / "model"
    shutil.copytree(model_directory, broken)
    (file,) = list(broken.glob("*.skops"))
    file.write_bytes(b"not a model")
    code, out, err = _run(capsys, "run", broken, data, "--output-dir", tmp_path / "out")
    assert (code, out) == (4, "")
    assert "Traceback" not in err
    code, _, err = _run(capsys, "run", broken, data, "--output-dir", tmp_path / "out", "--verbose")
    assert code == 4
    assert "Traceback" in err
    assert not (tmp_path / "out").exists()


def test_columns_that_the_model_needs_are_named(capsys, model_directory, tmp_path) -> None:
    path = tmp_path / "few.csv"
    pd.DataFrame({"income": [1.0, 2.0, 3.0]}).to_csv(path, index=False)
    code, _, err = _run(capsys, "run", model_directory, path, "--output-dir", tmp_path / "out")
    assert code == 2
    assert "debt" in err


def test_secrets_in_errors_are_masked(capsys, tmp_path) -> None:
    code, _, err = _run(capsys, "show", "https://me:CANARY@example.org/x")
    assert code in (1, 2)
    assert "CANARY" not in err
