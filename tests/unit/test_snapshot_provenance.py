"""Provenance: what is recorded, what is unknown with a reason, and that no secret gets in."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from snapshot_kit import frame, parts, subject

import explain_step
from explain_step.dataset import described, purpose
from explain_step.digests import frame_digest
from explain_step.secret_masking import mask, mask_lines, mask_text, masked
from explain_step.snapshot import ModelRef, provenance, write


def test_environment_names_every_distribution() -> None:
    record = provenance.environment()
    assert record["packages"]["numpy"] == metadata.version("numpy")
    assert record["packages"]["scikit-learn"] == metadata.version("scikit-learn")
    assert len(record["packages"]) > 50
    assert record["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert record["memory_bytes"] > 2**28
    assert set(record["threads"]) == set(provenance.THREAD_VARIABLES)


def test_environment_reads_thread_settings_only(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MY_API_TOKEN", "CANARY-environment")
    text = json.dumps(provenance.environment())
    assert '"OMP_NUM_THREADS": "3"' in text
    assert "CANARY" not in text


def _git(folder, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_code_has_commit_dirty_state_and_remote_without_credentials(tmp_path) -> None:
    _git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("x = 1\n")
    _git(tmp_path, "add", "train.py")
    _git(tmp_path, "commit", "-q", "-m", "first")
    _git(tmp_path, "remote", "add", "origin", "https://me:CANARY-pw@example.org/team/repo.git")
    argv = [str(tmp_path / "train.py"), "--rows", "5"]
    clean = provenance.code(seed=7, argv=argv)
    assert clean["git"]["dirty"] is False
    assert len(clean["git"]["commit"]) == 40
    assert clean["git"]["remote"] == "https://***@example.org/team/repo.git"
    assert clean["entry_point"] == "train.py"
    assert clean["argv"] == ["train.py", "--rows", "5"]
    assert clean["seed"]["root"] == 7
    (tmp_path / "train.py").write_text("x = 2\n")
    assert provenance.code(seed=7, argv=argv)["git"]["dirty"] is True


def test_unknown_facts_say_why(tmp_path) -> None:
    record = provenance.code(seed=0, argv=[""], directory=tmp_path)
    assert record["git"]["value"] is None
    assert "git rev-parse found nothing" in record["git"]["reason"]
    assert record["entry_point"] == {"value": None, "reason": "the interpreter was started without a script"}


def test_without_git_the_reason_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code(seed=0, argv=["x.py"])["git"] == {"value": None, "reason": "git is not installed"}


def test_data_describes_rows_without_any_value() -> None:
    X = frame(12).assign(town="CANARY")
    of = subject(X)
    record = provenance.data(of)
    assert record["digest"] == frame_digest(of.frame)
    assert record["rows"] == record["background_rows"] == 12
    assert record["target"] == "price"
    assert record["weights_digest"] is None
    assert [c["name"] for c in record["columns"]] == ["income", "town"]
    assert "CANARY" not in json.dumps(record)
    changed = subject(X.assign(income=X["income"] + 1))
    assert provenance.data(changed)["labels_digest"] != record["labels_digest"]


STORAGES = {
    "text": (["a", None, "b"], [None, object, "string", pd.ArrowDtype(pa.string())], "text"),
    "integers": ([1, 2, 3], ["int64", "Int64", pd.ArrowDtype(pa.int64())], "int64"),
    "single": ([1.5, 2.0, 3.0], ["float32", "Float32", pd.ArrowDtype(pa.float32())], "float32"),
    "truth": ([True, False, True], ["bool", "boolean", object, pd.ArrowDtype(pa.bool_())], "bool"),
    "dummies": ([0, 1, 0], ["uint8", "UInt8", pd.SparseDtype("uint8", 0)], "uint8"),
    "mostly nothing": (
        [0.0, 1.5, 0.0],
        ["float64", pd.SparseDtype(float, 0.0), pd.SparseDtype(float)],
        "float64",
    ),
    "days": (pd.to_datetime(["2020-01-01"] * 3), ["datetime64[ns]", "datetime64[s]"], "timestamp"),
    "levels": (["a", "b", "a"], ["category", pd.CategoricalDtype(["b", "a", "c"])], "category"),
    "ranks": (["a", "b", "a"], [pd.CategoricalDtype(["a", "b"], ordered=True)], "ordered category"),
    "mixed": ([1, "a", 2.5], [object], "object"),
}


@pytest.mark.parametrize("name", STORAGES)
def test_the_storage_of_a_column_changes_neither_its_digest_nor_its_type(name: str) -> None:
    values, dtypes, expected = STORAGES[name]
    columns = [pd.Series(values, dtype=dtype) for dtype in dtypes]  # None: what pandas chooses
    assert {provenance.logical_type(column) for column in columns} == {expected}
    assert len({frame_digest(column.to_frame("x")) for column in columns}) == 1


SECRETS = [
    (["--token", "CANARY"], ["--token", "***"]),
    (["--api-key=CANARY"], ["--api-key=***"]),
    (["--aws_secret_access_key", "CANARY"], ["--aws_secret_access_key", "***"]),
    (["DB_PASSWORD=CANARY"], ["DB_PASSWORD=***"]),
    (["--password", "-CANARY"], ["--password", "***"]),
    (["-p", "80", "--credentials", "CANARY"], ["-p", "80", "--credentials", "***"]),
    (["-p", "CANARY", "x"], ["-p", "***", "x"]),
    (["-pCANARY", "-p8080", "-p", "8080:80"], ["-p***", "-p8080", "-p", "8080:80"]),
    (["-u", "me:CANARY", "--user=me:CANARY"], ["-u", "me:***", "--user=me:***"]),
    (["--auth", "CANARY", "--pass", "CANARY"], ["--auth", "***", "--pass", "***"]),
    (["--pat=CANARY", "--dbPass", "CANARY"], ["--pat=***", "--dbPass", "***"]),
    (["--set", "auth.pass=CANARY"], ["--set", "auth.pass=***"]),
    (["-H", "Authorization: CANARY"], ["-H", "Authorization: ***"]),
    (["-H", "Authorization: Digest CANARY, CANARY"], ["-H", "Authorization: Digest ***"]),
    (["-H", "Cookie: s=CANARY; t=CANARY"], ["-H", "Cookie: s=***"]),
    (["KEY=CANARY"], ["KEY=***"]),
    (["--apiKey=CANARY"], ["--apiKey=***"]),
    (["postgresql://u:CANARY@db/x"], ["postgresql://***@db/x"]),
    (["--store=https://CANARY@host/p?sig=CANARY&a=b#f"], ["--store=https://***@host/p?sig=***&a=***#f"]),
    (["Authorization: Bearer CANARY.x"], ["Authorization: Bearer ***"]),
    (["ghp_" + "CANARY" * 6], ["***"]),
    (["hf_" + "CANARY" * 6], ["***"]),
    (["AKIA" + "CANARYCANARY"], ["***"]),
    (["--token", "--rows", "3"], ["--token", "***", "3"]),
]


@pytest.mark.parametrize(("words", "expected"), SECRETS)
def test_secrets_on_a_command_line_are_masked(words, expected) -> None:
    assert mask(words) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["--target", "deny", "--segments", "afam,single"],
        ["--passes", "3", "--author", "me", "--path=x", "--compass", "n", "-u", "me", "--user=me", "-v"],
        ["models:/mortgage@champion"],
        ["--url=https://example.org/x"],
        ["keys.csv"],
    ],
)
def test_ordinary_words_stay(words) -> None:
    assert mask(words) == words


def test_masking_goes_through_nested_values() -> None:
    value = {"a": ["https://u:p@h/"], "b": {"c": "text", "d": 1, "e": None}}
    assert masked(value) == {"a": ["https://***@h/"], "b": {"c": "text", "d": 1, "e": None}}
    assert mask_text("no url, 50% of a@b") == "no url, 50% of a@b"


@pytest.mark.parametrize(
    "text",
    [
        "connection failed: host=db user=me password=PLANTED",
        "Driver=x;Server=h;Pwd=PLANTED;Uid=me",
        *("token: PLANTED", "api_key = PLANTED", "MY_SECRET_VALUE=PLANTED", "access-key:PLANTED"),
        *("{'password': 'PLANTED x'}", '{"client_secret": "PLANTED"}', "AccountKey=PLANTED=="),
        "--conn=Server=h;Password=PLANTED;Uid=x",
        *(
            "Server=h;Password=a PLANTED b;Uid=x",
            'password="a PLANTED',
            "secret='PLANTED",
            '"token": "a\\"PLANTED"',
        ),
    ],
)
def test_what_drivers_say_of_passwords_is_masked(text) -> None:
    for said in (mask_text(text), mask([text])[0], described({"source": text})["source"], purpose(text)):
        assert "PLANTED" not in said
        assert "***" in said


def test_a_secret_below_its_key_is_masked_in_a_diff() -> None:
    lines = [
        "+++ b/conf.yaml",
        "+db:",
        "+  token:",
        "+    PLANTED",
        "",
        "+  secret: |",
        "+    PLANTED",
        "+    PLANTED",
    ]
    found = mask_lines("\n".join([*lines, "+  rows: 5", " keys:  # names", "-  - PLANTED", " last: 1"]))
    assert "PLANTED" not in found
    assert "+  rows: 5" in found
    assert " last: 1" in found
    assert "+    x = 1" in mask_lines("+++ b/a.py\n+def token():\n+    x = 1")


def test_planted_secrets_are_in_no_byte_of_a_snapshot(tmp_path, monkeypatch) -> None:
    url = "https://user:CANARY-userinfo@example.org/x?token=CANARY-query"
    monkeypatch.setattr(
        sys, "argv", ["train.py", "--api-key", "CANARY-argv", "PASSWORD=CANARY-assign", f"--store={url}"]
    )
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "CANARY-env")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "CANARY-env")
    shot = write(
        tmp_path,
        parts=parts(
            model=ModelRef(model_class="Repeater", uri=url),
            reason=f"no answer from {url}",
            missing={"segments": f"failed at {url}"},
            events=({"step": "fetch", "message": f"GET {url}"},),
        ),
    )
    for path in shot.path.rglob("*"):
        if path.is_file():
            assert b"CANARY" not in path.read_bytes(), path
    tables = pd.concat([t.astype(str) for t in shot.tables.values()])
    assert "CANARY" not in tables.to_csv()
    argv = json.loads((shot.path / "provenance/code.json").read_text())["argv"]
    assert argv[:3] == ["train.py", "--api-key", "***"]


@pytest.mark.filterwarnings("ignore:pandas.DataFrame with sparse columns")  # of scikit-learn
def test_sparse_columns_give_the_snapshot_that_dense_ones_give() -> None:
    words = pd.DataFrame(
        {"home": np.resize(["rent", "own", "free", "own", "rent"], 50), "age": np.arange(50.0)}
    )
    dense, sparse = (pd.get_dummies(words, dtype="uint8", sparse=s) for s in (False, True))
    model = LogisticRegression().fit(dense, words["age"] > 25)
    one, other = (explain_step.explain(model, rows, background=rows[:20]) for rows in (dense, sparse))
    assert one.id == other.id
