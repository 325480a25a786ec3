"""The recorded environment, rebuilt: what is asked for, what is refused, and what is said when it cannot be done."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from snapshot_kit import copied, frame

import explain_step
from explain_step.errors import ExplainStepError
from explain_step.replay_recreate import Plan, _build, _check_wheels, _in_folder, _variables, plan_of
from explain_step.snapshot import provenance
from explain_step.snapshot.provenance_lock import find_uv, pylock

ENVIRONMENT = {
    "python": {"version": "3.11.7"},
    "packages": {"explain-step": "0.1.0", "numpy": "2.4.6", "pytest": "9.2.0", "xgboost": "3.2.0"},
    "distributions": [{"name": "xgboost", "loaded": True}, {"name": "pytest", "loaded": False}],
    "threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": None},
}
needs_uv = pytest.mark.skipif(find_uv() is None, reason="uv builds the environment and is not installed")


def wheel(folder: Path, *, text: str = "VALUE = 7\n") -> Path:
    """Write a wheel of one module."""
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": text,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]) + "\n"
    folder.mkdir(exist_ok=True)
    place = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place


def plan(**changes) -> Plan:
    version = provenance.environment()["python"]["version"]
    given = {
        "python": version,
        "requirements": ("tiny==1.0",),
        "constraints": (),
        "lock": None,
        "threads": {},
    }
    return Plan(**{**given, **changes})


def lock(place: Path, digest: str) -> str:
    return (
        'lock-version = "1.0"\ncreated-by = "hand"\n[[packages]]\nname = "tiny"\nversion = "1.0"\n'
        f'wheels = [{{ name = "{place.name}", path = "{place.as_posix()}", hashes = {{ sha256 = "{digest}" }} }}]\n'
    )


def test_what_was_in_use_is_asked_for_and_all_the_rest_is_pinned() -> None:
    found = plan_of(ENVIRONMENT, {"lock": {"name": "pylock.toml", "text": "lock-version = '1.0'"}})
    assert found.requirements == ("numpy==2.4.6", "xgboost==3.2.0")
    assert found.constraints == ("numpy==2.4.6", "pytest==9.2.0", "xgboost==3.2.0")
    assert (found.python, found.lock) == ("3.11.7", "lock-version = '1.0'")
    assert plan_of(ENVIRONMENT, {"lock": {"name": "uv.lock", "text": "version = 1"}}).lock is None
    assert plan_of(ENVIRONMENT, {"lock": {"value": None, "reason": "none"}}).lock is None


@pytest.mark.parametrize(
    "broken", [{}, {"packages": {"numpy": "2"}}, {"python": {"version": "3.11"}, "packages": {}}]
)
def test_a_record_that_does_not_tell_enough_is_named(broken) -> None:
    with pytest.raises(ExplainStepError, match="no Python version or no packages"):
        plan_of(broken, {})


@pytest.mark.parametrize(
    "packages",
    [
        {"numpy": "2", "--index-url https://evil.example/": "1"},
        {"numpy": "2\n--index-url https://evil.example/"},
        {"numpy": "2", "tiny @ https://evil.example/tiny.whl": "1"},
        {"numpy": "2", "-e .": "1"},
    ],
)
def test_a_record_cannot_smuggle_options_into_the_installation(packages) -> None:
    with pytest.raises(ExplainStepError, match="is not a name and a version"):
        plan_of({**ENVIRONMENT, "packages": packages}, {})
    with pytest.raises(ExplainStepError, match="is not a version"):
        plan_of({**ENVIRONMENT, "python": {"version": "/tmp/python"}}, {})
    threads = {"LD_PRELOAD": "/tmp/x.so", "OMP_NUM_THREADS": "/tmp/x"}
    assert set(plan_of({**ENVIRONMENT, "threads": threads}, {}).threads.values()) == {None}


def test_thread_settings_inside_are_the_recorded_ones(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "8")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    found = _variables(tmp_path, threads=ENVIRONMENT["threads"])
    assert found["OMP_NUM_THREADS"] == "2"
    assert "MKL_NUM_THREADS" not in found
    assert found["PYTHONPATH"] == str(tmp_path)


def test_tools_may_be_lacking_among_the_wheels_and_libraries_may_not(tmp_path) -> None:
    wheel(tmp_path)
    kept, notes = _in_folder(("numpy==2", "pytest==9", "tiny==1.0"), tmp_path)
    assert kept == ("numpy==2", "tiny==1.0")
    assert notes == ("not among the wheels, and left out: pytest==9",)


@needs_uv
def test_wheels_are_installed_without_a_network(tmp_path) -> None:
    wheel(tmp_path / "wheels")
    python, notes = _build(plan(), tmp_path / "venv", wheels=tmp_path / "wheels")
    done = subprocess.run(
        [python, "-c", "import tiny; print(tiny.VALUE)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "7"
    assert notes == ()


IN_NAMESPACE = """
import sys
import tarfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_replay_recreate import plan
from explain_step.replay_recreate import _build
import socket, subprocess
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError as error:
    assert error.errno == 101, error  # not even the loopback is up: there is no network at all
place = Path(sys.argv[2])
python, _ = _build(plan(), place / "venv", wheels=place / "wheels")
print(subprocess.run([python, "-c", "import tiny; print(tiny.VALUE)"], capture_output=True, text=True).stdout)
"""


@needs_uv
@pytest.mark.skipif(
    subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="this machine allows no network namespace",
)
def test_wheels_are_installed_in_a_network_namespace(tmp_path) -> None:
    wheel(tmp_path / "wheels")
    folders = [str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", IN_NAMESPACE, *folders],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.stdout.strip() == "7", done.stderr[-1000:]


@needs_uv
def test_another_python_is_told(tmp_path) -> None:
    wheel(tmp_path / "wheels")
    here = ".".join(plan().python.split(".")[:2])
    _, notes = _build(plan(python=f"{here}.99"), tmp_path / "venv", wheels=tmp_path / "wheels")
    assert notes == (f"Python {here}.99 is not available; another {here} was taken",)


@needs_uv
def test_a_wheel_that_is_not_the_locked_one_is_refused(tmp_path) -> None:
    good = wheel(tmp_path / "wheels")
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    python, _ = _build(plan(lock=lock(good, digest)), tmp_path / "venv", wheels=None)
    assert python.is_file()
    wheel(tmp_path / "wheels", text="VALUE = 8\n")
    with pytest.raises(ExplainStepError, match=r"(?i)hash mismatch"):
        _build(plan(lock=lock(good, digest)), tmp_path / "again", wheels=None)


def test_a_wheel_in_the_folder_must_be_the_locked_one(tmp_path) -> None:
    good = wheel(tmp_path / "wheels")
    text = lock(good, hashlib.sha256(good.read_bytes()).hexdigest())
    _check_wheels(text, tmp_path / "wheels")
    by_url = (
        f'wheels = [{{ url = "https://example.org/a/{good.name}", hashes = {{ sha256 = "{"0" * 64}" }} }}]'
    )
    for wrong in (lock(good, "0" * 64), f'[[packages]]\nname = "tiny"\n{by_url}\n'):
        with pytest.raises(ExplainStepError, match="hash mismatch"):
            _check_wheels(wrong, tmp_path / "wheels")
    for broken in ("packages = [", "packages = 3", "[[packages]]\nwheels = [3]"):
        with pytest.raises(ExplainStepError, match="cannot be read"):
            _check_wheels(broken, tmp_path / "wheels")


def test_the_lock_is_the_projects_or_the_one_that_was_made() -> None:
    made = {"text": "lock-version = '1.0' # made"}
    assert plan_of(ENVIRONMENT, {"pylock": made}).lock == made["text"]
    ours = {"name": "pylock.toml", "text": "lock-version = '1.0'"}
    assert plan_of(ENVIRONMENT, {"lock": ours, "pylock": made}).lock == ours["text"]
    assert (
        plan_of(ENVIRONMENT, {"lock": {"name": "uv.lock"}, "pylock": {"value": None, "reason": "x"}}).lock
        is None
    )


def test_a_lock_of_what_is_installed_or_the_reason(tmp_path, monkeypatch) -> None:
    rows = provenance.environment()["distributions"]
    record = pylock([row for row in rows if row["name"] in ("click", "numpy")], where=tmp_path)
    if "reason" in record:
        assert record["value"] is None
        assert "uv" in record["reason"]
    else:
        packages = {p["name"]: p for p in tomllib.loads(record["text"])["packages"]}
        assert set(packages) == {"click", "numpy"}
        assert all(len(w["hashes"]["sha256"]) == 64 for p in packages.values() for w in p["wheels"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_uv() == shutil.which("uv", path=str(Path(sys.executable).parent))  # not activated, but beside
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert find_uv() is None
    assert pylock(rows, where=tmp_path) == {"value": None, "reason": "uv is not installed"}
    assert pylock([], where=tmp_path)["reason"] == "no distribution was installed from an index"


@needs_uv
def test_a_missing_wheel_is_named(tmp_path) -> None:
    (tmp_path / "wheels").mkdir()
    place = copied(tmp_path / "shots")
    found = explain_step.replay(place, data=frame(30), env="recreate", wheels=tmp_path / "wheels")
    assert (found.verdict, found.environment) == ("not_replayable", "recreate")
    assert "could not be rebuilt" in found.reason
    assert "not found in the provided package locations" in found.reason


def test_without_uv_the_reason_is_said(tmp_path, monkeypatch) -> None:
    place = copied(tmp_path / "shots")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    found = explain_step.replay(place, data=frame(30), env="recreate")
    assert found.verdict == "not_replayable"
    assert "uv is not installed" in found.reason


@pytest.mark.parametrize(
    "given", [{"model": object()}, {"y": [1.0]}, {"sample_weight": [1.0]}, {"config": {}}]
)
def test_objects_do_not_go_to_another_process(tmp_path, given) -> None:
    place = copied(tmp_path / "shots")
    with pytest.raises(explain_step.InvalidInput, match="env='recreate'"):
        explain_step.replay(place, data=frame(30), env="recreate", **given)


def source(folder: Path, name: str) -> None:
    """Write a source distribution whose building leaves a trace."""
    folder.mkdir(exist_ok=True)
    trap = folder / "built"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: 0.0.77\n",
        "setup.py": f"open({str(trap)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name={name!r}, version='0.0.77')\n",
    }
    with tarfile.open(folder / f"{name}-0.0.77.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}-0.0.77/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A place that offers one distribution as a wheel and two as source alone."""
    folder = tmp_path / "index"
    wheel(folder)
    source(folder, "solid")
    source(folder, "click")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    return folder


@needs_uv
def test_what_has_no_wheel_is_left_out_named_and_never_built(index, tmp_path) -> None:
    python, notes = _build(plan(requirements=("solid==0.0.77", "tiny==1.0")), tmp_path / "venv", wheels=None)
    assert notes == ("the index has no wheel of it, and left out: solid",)
    assert subprocess.run([python, "-c", "import tiny"], check=False).returncode == 0
    with pytest.raises(ExplainStepError, match="no usable wheels"):  # without it nothing can be replayed
        _build(plan(requirements=("click==0.0.77", "tiny==1.0")), tmp_path / "other", wheels=None)
    assert not (index / "built").exists()


@needs_uv
def test_the_lock_names_what_has_no_wheel(index, tmp_path) -> None:
    versions = {"click": "0.0.77", "solid": "0.0.77", "tiny": "1.0"}
    rows = [{"name": n, "version": v, "from_index": True} for n, v in versions.items()]
    record = pylock([*rows, {"name": "ours", "version": "1.0", "from_index": False}], where=tmp_path)
    assert record["left_out"] == ["click", "ours", "solid"]
    assert [p["name"] for p in tomllib.loads(record["text"])["packages"]] == ["tiny"]
    assert not (index / "built").exists()


@needs_uv
def test_what_was_in_use_and_is_not_in_the_lock_is_named(tmp_path) -> None:
    good = wheel(tmp_path / "wheels")
    text = lock(good, hashlib.sha256(good.read_bytes()).hexdigest())
    given = plan(lock=text, requirements=("solid==1.0", "tiny==1.0"))
    _, notes = _build(given, tmp_path / "venv", wheels=None)
    assert notes == ("not in the recorded lock, and left out: solid==1.0",)
