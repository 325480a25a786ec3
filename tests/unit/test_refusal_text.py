"""The words of a refusal: the version, the reason, the code, and a command that can be pasted."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import pytest
import sqlalchemy

from explain_step.gate import DEFAULT, GateDecision, Request
from explain_step.secret_masking import told
from explain_step.server.judge import refusal_text
from explain_step.types import Finding

UNEXPLAINED = "{uri} is not explained: there is no finished explanation snapshot beside the model"


def refused(
    *messages: tuple[str, str], name: str = "mortgage", version: str = "1", policy: str = DEFAULT.digest
) -> GateDecision:
    uri = f"models:/{name}/{version}"
    findings = tuple(Finding(code=c, verdict="fail", message=m.format(uri=uri)) for c, m in messages)
    return GateDecision(
        outcome="refuse",
        name=name,
        version=version,
        request=Request(action="alias", target="champion"),
        findings=findings,
        policy_name="p",
        policy_digest=policy,
        snapshot_id=None,
        manifest_sha256=None,
        model_digest=None,
        decided_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_the_version_is_named_once_and_the_code_follows_the_reason() -> None:
    assert refusal_text(refused(("GATE002", UNEXPLAINED))) == (
        "models:/mortgage/1 may not get alias 'champion': it is not explained: there is no finished explanation "
        "snapshot beside the model (GATE002). Explain it: explain-step run models:/mortgage/1 rows.parquet "
        "--target LABEL"
    )


@pytest.mark.parametrize("name", ["mortgage ui", "a;reboot", "it's $HOME"])
def test_the_command_is_quoted_for_a_shell(name: str) -> None:
    text = refusal_text(refused(("GATE002", UNEXPLAINED), name=name))
    command = text.partition("Explain it: ")[2]
    assert shlex.split(command)[:3] == ["explain-step", "run", f"models:/{name}/1"]


def test_two_reasons_are_told_and_the_others_counted() -> None:
    text = refusal_text(refused(("GATE010", "one."), ("GATE020", "two  lines\nof it"), ("GATE030", "three")))
    assert "'champion': one (GATE010); two lines of it (GATE020) (and 1 more). " in text
    assert text.endswith("All findings: explain-step gate models:/mortgage/1")


def test_an_own_policy_belongs_to_the_command() -> None:
    text = refusal_text(refused(("GATE020", "the score is low"), policy="0" * 64))
    assert text.endswith("explain-step gate models:/mortgage/1 --policy policy.yaml")


@pytest.mark.parametrize(
    ("source", "start", "end"),
    [
        ("models:/dev/3", "models:/dev/3 may", "explain-step run models:/dev/3 rows.parquet --target LABEL"),
        ("models:/m-1", "models:/m-1 may", "explain-step run models:/m-1 rows.parquet --target LABEL"),
        ("s3://b/model", "A new version may", "run models:/NAME/VERSION rows.parquet --target LABEL"),
    ],
)
def test_a_version_that_is_to_be_copied_is_named_where_it_comes_from(
    source: str, start: str, end: str
) -> None:
    text = refusal_text(refused(("GATE002", UNEXPLAINED), name="prod.x", version="new"), source=source)
    assert text.startswith(f"{start} not enter prod.x: it is not explained: there is no")
    assert text.endswith(end)
    assert ("Register it under another name first." in text) == (not source.startswith("models:"))


def test_findings_of_a_logged_model_need_a_version_first() -> None:
    text = refusal_text(refused(("GATE020", "low"), name="prod.x", version="new"), source="models:/m-1")
    assert text.endswith(
        "Register it under another name first. All findings: explain-step gate models:/NAME/VERSION"
    )


def test_an_error_of_a_store_is_told_without_secrets_statements_and_rows() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (name TEXT UNIQUE)")
        write = sqlalchemy.text("INSERT INTO t VALUES (:name)")
        connection.execute(write, {"name": "a person"})
        with pytest.raises(sqlalchemy.exc.IntegrityError) as caught:
            connection.execute(write, {"name": "a person"})
    assert told(caught.value) == "IntegrityError: (sqlite3.IntegrityError) UNIQUE constraint failed: t.name"
    postgres = ValueError(
        "null value violates not-null constraint\nDETAIL:  Failing row contains (a person, null).\n[SQL: INSERT"
    )
    assert told(postgres) == "ValueError: null value violates not-null constraint"
    refused = OSError("no answer of postgresql://gate:pw-of-it@db/mlflow for user=gate password=pw-of-it")
    assert "pw-of-it" not in told(refused)
