"""The gate, as a story in an embedded MLflow store: refused, explained, promoted, a leak, a waiver, a bypass, found.

On the command line the same is ``explain-step promote models:/gated/1 --alias champion --policy examples/policy.yaml``.
The script ends with 0 only when every step went as told.
"""

from __future__ import annotations

import argparse
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pandas as pd
import yaml
from train import DATA, PICKLE_FREE, STORAGE, new_model, split

import explain_step
from explain_step.tracking.decision_log import decisions_of

POLICY = yaml.safe_load(Path(__file__).with_name("policy.yaml").read_text(encoding="utf-8"))
if not PICKLE_FREE:  # a pickle is not loaded to compare its predictions, so its binding is only declared
    POLICY["require"]["binding"] = "declared"
NAME = "gated"


def say(text: str, *, told: bool) -> None:
    """Tell one step of the story; end the script where it did not go that way."""
    if not told:
        raise SystemExit(f"not as told: {text}")
    print(f"  {text}")


def register(X: pd.DataFrame, y: pd.Series) -> str:
    """Train a small forest, log it and register it; return the URI of the new version."""
    model = new_model().set_params(forest__n_estimators=25, forest__max_features=None).fit(X, y)
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=NAME,
            pip_requirements=["scikit-learn", "pandas"],  # given, so that MLflow need not find out
            **STORAGE,
        )
    return f"models:/{NAME}/{info.registered_model_version}"


def with_leak(X: pd.DataFrame, y: pd.Series) -> pd.DataFrame:
    """Add a column that is only known after the decision."""
    return X.assign(reviewed=y.eq("yes").astype(float))


def explain(uri: str, X: pd.DataFrame, y: pd.Series, *, background: pd.DataFrame) -> str:
    """Explain a registered version on held-out rows; return the status."""
    logged = explain_step.log_explanations(
        uri, X, y, background=background.head(200), segments=["afam"], max_rows=200, on_error="raise",
        allow_pickle=not PICKLE_FREE,  # old MLflow stores nothing else
    )  # fmt: skip
    return logged.status


def champion() -> str | None:
    """Return the version behind the alias."""
    version = mlflow.MlflowClient().get_registered_model(NAME).aliases.get("champion")
    return None if version is None else str(version)


def open_store(store: Path) -> Path:
    """Use the SQLite store in a folder; return the database file."""
    store.mkdir(parents=True, exist_ok=True)
    database = store.resolve() / "mlflow.db"
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    if mlflow.get_experiment_by_name(NAME) is None:
        mlflow.create_experiment(NAME, artifact_location=(store.resolve() / "artifacts").as_uri())
    mlflow.set_experiment(NAME)
    client = mlflow.MlflowClient()
    if client.search_registered_models(f"name = '{NAME}'") and champion() is not None:
        client.delete_registered_model_alias(NAME, "champion")  # of an earlier telling in this folder
    return database


def main(store: Path) -> int:
    """Tell the story."""
    database = open_store(store)
    X_train, X_test, y_train, y_test = split(DATA)

    print("\nA version without an explanation is not promoted.")
    first = register(X_train, y_train)
    decision = explain_step.promote(first, "champion", policy=POLICY)
    say(decision.summary, told=decision.outcome == "refuse" and champion() is None)

    print("\nExplained, it is.")
    status = explain(first, X_test, y_test, background=X_train)
    decision = explain_step.promote(first, "champion", policy=POLICY)
    say(f"status {status}; {decision.summary}", told=decision.allowed)
    say(f"champion is version {champion()}", told=champion() == first.rpartition("/")[2])

    print("\nThe next version reads a column that is filled in after the decision: a leak.")
    leaking = with_leak(X_train, y_train)
    second = register(leaking, y_train)
    explain(second, with_leak(X_test, y_test), y_test, background=leaking)
    decision = explain_step.promote(second, "champion", policy=POLICY)
    reason = next(f for f in decision.findings if f.code == "GATE031" and f.verdict == "fail")
    say(f"{reason.code} {reason.message}", told=decision.outcome == "refuse")
    say(f"champion is still version {champion()}", told=champion() == first.rpartition("/")[2])

    print("\nA waiver lets it pass: by name, with a reason, until a day, and in the log.")
    until = (datetime.now(UTC) + timedelta(days=14)).date().isoformat()
    waiver = {
        "rules": sorted({f.code for f in decision.blocking}),
        "registered_model": NAME,
        "version": second.rpartition("/")[2],
        "owner": "ann",
        "reason": "shadow test of the new column",
        "expires": until,
    }
    waived = {**POLICY, "waivers": [waiver]}
    decision = explain_step.promote(second, "champion", policy=waived, by="ann")
    say(decision.summary, told=decision.allowed and champion() == second.rpartition("/")[2])
    for finding in decision.findings:
        if "waived" in finding.evidence:
            by = finding.evidence["waived"]
            say(f"{finding.code}, waived by {by['owner']}: {by['reason']}", told=by["expires"] == until)
    log = decisions_of(second)
    outcomes = [str(entry.record["outcome"]) for entry in log.entries]
    say(f"the log has: {', '.join(outcomes)}", told=outcomes == ["refuse", "allow"] and not log.breaks)

    print("\nSomebody moves the alias in the database, past the gate. The audit finds it.")
    third = register(X_train, y_train).rpartition("/")[2]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE registered_model_aliases SET version = ? WHERE name = ? AND alias = 'champion'",
            (third, NAME),
        )
    found = explain_step.audit(registered_models=NAME, policy=waived)
    problems = found[(found["kind"] == "alias") & (found["verdict"] == "fail")]
    for problem in problems["problem"]:
        say(str(problem), told=champion() == third)
    say("exactly one alias is out of order", told=len(problems) == 1)
    print("\ncomplete: every step went as told")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("demo"))
    raise SystemExit(main(parser.parse_args().store))
