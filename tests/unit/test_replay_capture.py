"""What a snapshot records of its making: facts a replay needs, and no secret among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from snapshot_kit import frame, parts, subject

import explain_step
from explain_step.config import Config
from explain_step.dataset import described, purpose
from explain_step.digests import frame_digest, frame_digests
from explain_step.errors import NotApplicable
from explain_step.secret_masking import mask_lines
from explain_step.seeds import Seeds
from explain_step.snapshot import provenance, write
from explain_step.snapshot.provenance_code import DIFF_BYTES, lock, repository
from explain_step.snapshot.provenance_origin import row_digests
from explain_step.stages import Journal

LOG_KEYS = {"schema_version", "seq", "ts", "step", "event", "wall_s", "cpu_s", "rss_bytes", "rows", "status"}


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "train.py").write_text("rows = 1\n")
    (folder / "rows.csv").write_text("name\nAda\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_every_distribution_has_the_digest_of_its_files() -> None:
    record = provenance.environment()
    rows = {row["name"]: row for row in record["distributions"]}
    assert {name: row["version"] for name, row in rows.items()} == record["packages"]
    assert rows["numpy"]["version"] == metadata.version("numpy")
    assert len(rows["numpy"]["record_sha256"]) == 64
    assert rows["numpy"]["loaded"] is True
    assert "cp311" in rows["numpy"]["wheel_tag"] or "cp3" in rows["numpy"]["wheel_tag"]
    assert all(isinstance(row["installer"], str | dict) for row in rows.values())


def test_the_digest_of_a_distribution_does_not_depend_on_where_it_is_installed() -> None:
    from explain_step.snapshot.provenance_packages import _installed

    record = "a/__init__.py,sha256=x,1\na-1.dist-info/INSTALLER,sha256=y,2\n../../../bin/a,sha256=z,3\n"
    record += "a/__pycache__/__init__.cpython-311.pyc,,\na-1.dist-info/RECORD,,\na-1.dist-info/METADATA,sha256=m,1\n"
    assert list(_installed(record)) == ["a-1.dist-info/METADATA,sha256=m,1", "a/__init__.py,sha256=x,1"]


def test_the_machine_says_what_it_is_or_why_not() -> None:
    record = provenance.environment()
    for key in ("cpu", "cpu_flags", "gpu", "container", "blas", "libc", "memory_bytes"):
        value = record[key]
        assert value, key
        if isinstance(value, dict) and "value" in value:
            assert value["value"] is None
            assert value["reason"], key
    assert {"user_api", "num_threads"} <= set(record["blas"][0])
    assert "/" not in json.dumps(record["blas"])


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").is_file(), reason="only Linux tells of its machine in /proc/cpuinfo"
)
def test_what_the_machine_says_is_what_the_kernel_says() -> None:
    """An unknown is allowed where a fact cannot be had; on Linux these can."""
    record = provenance.environment()
    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    told = {key.strip(): value.strip() for key, value in facts.items()}
    flags = told.get("flags") or told.get("Features")
    assert flags is None or set(record["cpu_flags"].split()) == set(flags.split())
    assert "model name" not in told or record["cpu"] == told["model name"]
    total = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024
    assert record["memory_bytes"] == pytest.approx(total, rel=0.05)
    assert record["kernel"] == f"{os.uname().sysname} {os.uname().release}"
    assert record["libc"] == os.confstr("CS_GNU_LIBC_VERSION")
    assert record["cores"] == os.cpu_count()
    assert record["cores_usable"] == len(os.sched_getaffinity(0))
    assert record["python"]["compiler"] in sys.version
    assert Path("/proc/driver/nvidia/version").is_file() == ("driver" in record["gpu"])
    (blas,) = {library["internal_api"] for library in record["blas"] if library["user_api"] == "blas"}
    assert blas in ("openblas", "mkl", "blis", "flexiblas", "armpl")


def test_a_distribution_is_told_as_its_own_files_tell_it() -> None:
    rows = {row["name"]: row for row in provenance.environment()["distributions"]}
    for name in ("numpy", "pandas", "mlflow"):
        files = metadata.distribution(name)
        assert rows[name]["installer"] == (files.read_text("INSTALLER") or "").strip()
        tags = [
            line[5:] for line in (files.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")
        ]
        assert rows[name]["wheel_tag"].split() == sorted(tags)
        assert rows[name]["from_index"] is (files.read_text("direct_url.json") is None)


def test_the_container_is_the_one_that_is_named(monkeypatch) -> None:
    digest = "sha256:" + "ab" * 32
    monkeypatch.setenv("EXPLAIN_STEP_CONTAINER", f"https://me:CANARY@registry.example/train@{digest}")
    record = provenance.environment()["container"]
    assert record == {"image": f"https://***@registry.example/train@{digest}", "digest": digest}


def test_changed_source_is_kept_and_changed_data_is_only_named(project) -> None:
    (project / "train.py").write_text("rows = 2\n")
    (project / "rows.csv").write_text("name\nCANARY\n")
    (project / "notes.txt").write_text("CANARY\n")
    record = repository(project)
    assert record["dirty"] is True
    assert record["changed"] == {"count": 2, "names": ["rows.csv", "train.py"]}
    assert record["untracked"] == {"count": 1, "names": ["notes.txt"]}
    assert "+rows = 2" in record["diff"]["text"]
    assert "CANARY" not in json.dumps(record)
    assert repository(project, text=False)["diff"]["text"] == {"value": None, "reason": "privacy is strict"}


def test_a_clean_tree_has_an_empty_diff_and_a_large_one_is_cut(project) -> None:
    clean = repository(project)
    assert (clean["dirty"], clean["diff"]["bytes"], clean["untracked"]["count"]) == (False, 0, 0)
    (project / "train.py").write_text("".join(f"x{k} = {k}\n" for k in range(12_000)))
    cut = repository(project)["diff"]
    assert cut["truncated"] is True
    assert len(cut["text"].encode()) <= DIFF_BYTES < cut["bytes"]
    (project / "train.py").write_text("x = 1  # ....................\n" * 30_000)
    assert repository(project)["diff"]["value"] is None


def test_the_lock_beside_the_code_is_recorded(project) -> None:
    assert lock(project)["value"] is None
    (project / "uv.lock").write_text('version = 1\n[[package]]\nname = "numpy"\n')
    (project / "src").mkdir()
    found = lock(project / "src")
    assert (found["name"], found["text"][:11], len(found["sha256"])) == ("uv.lock", "version = 1", 64)
    (project / "pylock.toml").write_text('url = "https://me:CANARY@index.example/simple"\n')
    found = lock(project)
    assert found["name"] == "pylock.toml"
    assert "credential" in found["text"]["reason"]


MASKED = [
    ('+api_key = "CANARY"', '+api_key = "***"'),
    ("-password = 'CANARY pass'", "-password = '***'"),
    ('+connect(user="me", password="CANARY")', '+connect(user="***", password="***")'),
    ("+url = 'postgresql://me:CANARY@db/x'", "+url = 'postgresql://***@db/x'"),
    ('+salt = "a1CANARYb2c3d4e5f6a7b8c9"', '+salt = "***"'),
    ("+++ b/settings.yaml\n+token: CANARY more", "+++ b/settings.yaml\n+token: ***"),
    ("+++ b/.env.sh\n+export DB_PASSWORD=CANARY", "+++ b/.env.sh\n+export DB_PASSWORD=***"),
    ('+auth = ("me", "CANARY")', '+auth = ("***", "***")'),
    ("+pw = 'CANARY'\n+db.login('me', 'CANARY')", "+pw = '***'\n+db.login('***', '***')"),
    ('+password = (\n+    "CANARY"\n+)\n+name = "plain"', '+password = (\n+    "***"\n+)\n+name = "plain"'),
    ("+# https://hooks.slack.com/services/T0/B0/CANARY", "+# https://hooks.slack.com/services/***"),
    ("+++ b/Dockerfile\n+ENV API_TOKEN CANARY12", "+++ b/Dockerfile\n+ENV API_TOKEN ***"),
    ("+++ b/x.ini\n+machine a login me password CANARY12", "+++ b/x.ini\n+machine a login me password ***"),
    ("+++ b/run.sh\n+curl -u me:CANARY https://x", "+++ b/run.sh\n+curl -u me:*** https://x"),
    ("+++ b/run.sh\n+docker login -u me -p CANARY", "+++ b/run.sh\n+docker login -u me -p ***"),
    ("+++ b/run.sh\n+mysql -pCANARY db", "+++ b/run.sh\n+mysql -p*** db"),
    (
        "+++ b/x.sql\n+CREATE USER me IDENTIFIED BY 'CANARY'",
        "+++ b/x.sql\n+CREATE USER me IDENTIFIED BY '***'",
    ),
    (
        "+++ b/x.yaml\n+- name: DB_PASSWORD\n+  value: CANARY\n+- name: A\n+  value: b",
        "+++ b/x.yaml\n+- name: DB_PASSWORD\n+  value: ***\n+- name: A\n+  value: b",
    ),
    ("+-----BEGIN RSA PRIVATE KEY-----\n+CANARY\n+-----END RSA PRIVATE KEY-----", "+***\n+***\n+***"),
]


@pytest.mark.parametrize(("text", "expected"), MASKED)
def test_secrets_in_a_diff_are_masked(text: str, expected: str) -> None:
    assert mask_lines(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "+++ b/key.py\n+rows.sort(key=len)",
        " for key, value in items:",
        '+name = "a plain text"',
        "+++ b/run.sh\n+mkdir -p out/2024 && docker run -p 8080:80 -u 1000 image",
        "+++ b/x.yaml\n+- name: rows\n+  value: 5",
    ],
)
def test_ordinary_code_stays(text: str) -> None:
    assert mask_lines(text) == text


def _rowset(X: pd.DataFrame) -> str | None:
    return frame_digests(X, rowset=True).rowset


def test_rows_in_another_order_or_storage_have_the_same_set_digest() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {"a": rng.normal(size=50), "b": rng.integers(3, size=50), "c": rng.choice(["u", "v"], 50)}
    )
    X.loc[3, "a"] = np.nan
    X["c"] = X["c"].astype(object).where(X.index != 5, None)
    X["t"] = pd.to_datetime(rng.integers(0, 9, size=50), unit="D").where(X.index != 7)
    X["k"] = pd.Categorical(rng.choice(["x", "y"], 50), ordered=True)
    digest = _rowset(X)
    assert _rowset(X.sample(frac=1, random_state=1)) == digest
    stored = X.assign(c=X["c"].astype("string"), b=X["b"].astype("Int64"), t=X["t"].astype("datetime64[ns]"))
    assert _rowset(stored.sample(frac=1, random_state=2)) == digest
    for changed in (
        X.iloc[:-1],
        pd.concat([X, X.tail(1)]),
        X.rename(columns={"a": "z"}),
        X.assign(b=X["b"] + 1),
        X.assign(b=X["b"].astype("int32")),
        X.assign(k=X["k"].cat.reorder_categories(["y", "x"])),
    ):
        assert _rowset(changed) != digest
    swapped = X.assign(a=X["a"].to_numpy()[::-1])
    assert _rowset(swapped) != digest


def test_rows_that_repeat_count_and_an_empty_frame_has_a_set_digest() -> None:
    twice = pd.DataFrame({"s": ["a", "b", "a"]})
    assert _rowset(twice) == _rowset(twice.iloc[[0, 2, 1]])
    assert _rowset(twice) != _rowset(pd.DataFrame({"s": ["a", "b", "b"]}))
    assert _rowset(twice.iloc[:0]) != _rowset(pd.DataFrame())


def test_columns_have_digests_but_not_the_hidden_ones() -> None:
    X = frame(20)
    found = row_digests(frame_digests(X, rowset=True), list(X.columns), hidden=("town",))
    assert found["column_digests"] == {"income": frame_digest(X[["income"]])}
    assert found["rowset_algorithm"] == "rowset-v2"
    private = row_digests(frame_digests(X), list(X.columns), hidden=None)
    assert private["column_digests"] == {"value": None, "reason": "privacy is strict"}
    assert "cells" in private["rowset_digest"]["reason"]


def test_who_where_and_why_stay_outside_the_id(tmp_path, monkeypatch) -> None:
    first = write(tmp_path / "a", parts=parts())
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("CI_JOB_URL", "https://ci:CANARY@ci.example/7")
    second = write(tmp_path / "b", parts=parts(purpose="yearly review", dataset={"split": "test"}))
    assert first.id == second.id
    record = second.manifest["provenance"]
    assert (record["who"], record["why"]) == ("ada", "yearly review")
    assert record["where"]["ci"] == {"CI_JOB_URL": "https://***@ci.example/7"}
    assert first.manifest["provenance"]["why"]["value"] is None
    assert second.manifest["data"]["origin"]["dataset"] == {"split": "test"}
    strict = write(tmp_path / "c", parts=parts(config=Config(privacy="strict"))).manifest
    assert strict["provenance"]["who"] == {"value": None, "reason": "privacy is strict"}


def test_facts_about_the_rows_are_checked() -> None:
    assert described({"parents": ["a", "b"], "time_range": ["2020", "2021"]}) == {
        "parents": ["a", "b"],
        "time_range": ["2020", "2021"],
    }
    for wrong in ({"license": "MIT"}, {"split": 3}, {"time_range": ["2020"]}, "test"):
        with pytest.raises(explain_step.InvalidInput, match="Option dataset"):
            described(wrong)  # type: ignore[arg-type]
    with pytest.raises(explain_step.InvalidInput, match="Option purpose"):
        purpose(["review"])


def test_the_log_has_a_stable_schema_and_the_seeds_their_consumers(tmp_path) -> None:
    from sklearn.linear_model import LinearRegression

    X = frame(40).assign(debt=np.arange(40.0))[["income", "debt"]]
    shot = explain_step.explain(
        LinearRegression().fit(X, X["income"]),
        X,
        X["income"].rename("y"),
        directory=tmp_path,
        top_features=1,
        dataset={"source": "test.parquet"},
        purpose="a test",
        config={"seed": 9},
    )
    lines = [json.loads(line) for line in (shot.path / "provenance/log.jsonl").read_text().splitlines()]
    assert all(set(line) >= LOG_KEYS for line in lines)
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert lines[1]["rows"] == 40
    assert lines[0]["rss_bytes"] > 2**20
    seeds = json.loads((shot.path / "provenance/code.json").read_text())["seed"]
    consumers = {record["consumer"]: record for record in seeds["consumers"]}
    assert seeds["root"] == 9
    assert consumers["permutation_importance"]["value"][0] == 9
    assert {"dependence", "scores"} <= set(consumers)
    assert shot.manifest["data"]["origin"]["dataset"] == {"source": "test.parquet"}
    options = json.loads((shot.path / "provenance/config.json").read_text())
    assert options == shot.manifest["config"]
    assert options["seed"] == 9
    assert shot.manifest["created_at"].endswith("+00:00")


def test_a_line_of_the_log_tells_waiting_from_work_and_failure_from_success(monkeypatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    journal = Journal()
    started = datetime.now(UTC).replace(microsecond=0)
    with journal.stage("waits"):
        time.sleep(0.3)
    begun = time.process_time()
    with journal.stage("works"):
        while time.process_time() - begun < 0.3:
            pass
    with pytest.raises(ZeroDivisionError), journal.stage("fails"):
        raise ZeroDivisionError
    with pytest.raises(NotApplicable), journal.stage("passes"):
        raise NotApplicable("not here")
    monkeypatch.undo()
    time.tzset()
    waits, works, fails, passes = journal.events
    assert waits["cpu_s"] < 0.2 < waits["wall_s"]
    assert min(works["cpu_s"], works["wall_s"]) >= 0.29
    assert [e["status"] for e in (waits, works, fails, passes)] == ["ok", "ok", "failed", "not_applicable"]
    assert started <= datetime.strptime(waits["ts"], "%Y-%m-%dT%H:%M:%S%z") <= datetime.now(UTC)


def test_each_consumer_has_the_seed_that_its_generator_has() -> None:
    seeds = Seeds(9)
    drawn = seeds.rng("scores").random()
    recorded = provenance.code(seed=9, argv=[], consumers=seeds.consumers())["seed"]["consumers"]
    (record,) = [r for r in recorded if r["consumer"] == "scores"]
    assert np.random.default_rng(np.random.SeedSequence(record["value"])).random() == drawn


def test_the_record_of_rows_holds_labels_weights_and_background_apart() -> None:
    X = subject(frame(30))
    whole = provenance.data(X)
    for change, key in (
        ({"y": X.y[::-1].copy()}, "labels_digest"),
        ({"weights": np.arange(30.0)}, "weights_digest"),
        ({"background": X.background.iloc[1:]}, "background_digest"),
    ):
        found = provenance.data(replace(X, **change))
        rows = {"background_rows"} if key == "background_digest" else set()
        assert {k for k in whole if whole[k] != found[k]} == {key} | rows
    assert whole["columns"][0]["missing"] == 0
    holed = X.frame.copy()
    holed.iloc[[1, 4], 0] = np.nan
    columns = provenance._columns(holed)
    assert [c["missing"] for c in columns] == [2] + [0] * (holed.shape[1] - 1)


def test_planted_secrets_are_in_no_byte(project, tmp_path, monkeypatch) -> None:
    url = "https://user:CANARY@example.org/x?token=CANARY"
    git(project, "remote", "add", "origin", url)
    (project / "train.py").write_text(f'rows = 2\nAPI_KEY = "CANARY"\nurl = "{url}"\nDB_PASSWORD="CANARY1"\n')
    (project / "CANARY_data.csv").write_text("CANARY")
    (project / ".gitignore").write_text("*.csv\n")
    (project / "uv.lock").write_text(f'index = "{url}"\n')
    monkeypatch.setattr(sys, "argv", [str(project / "train.py"), "--password", "CANARY", f"--store={url}"])
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "CI_JOB_URL", "EXPLAIN_STEP_CONTAINER"):
        monkeypatch.setenv(name, url if name in ("CI_JOB_URL", "EXPLAIN_STEP_CONTAINER") else "CANARY")
    shot = write(
        tmp_path / "out", parts=parts(purpose=purpose(f"see {url}"), dataset=described({"source": url}))
    )
    for path in shot.path.rglob("*"):
        if path.is_file():
            assert b"CANARY" not in path.read_bytes(), path
    code = json.loads((shot.path / "provenance/code.json").read_text())
    assert code["git"]["changed"]["names"] == ["train.py"]
    assert "+rows = 2" in code["git"]["diff"]["text"]


def test_capture_costs_a_fraction_of_a_second(project) -> None:
    """Processor time, which other processes do not change."""
    X = subject(frame(5_000))
    started, children = time.process_time(), os.times()
    provenance.environment()
    provenance.code(seed=0, argv=[str(project / "train.py")])
    row_digests(frame_digests(X.frame, rowset=True), list(X.frame.columns), hidden=())
    after = os.times()
    git_time = after.children_user + after.children_system - children.children_user - children.children_system
    assert time.process_time() - started + git_time < 0.5 * max(1.0, len(provenance.distributions()) / 100)
