"""The same content in another process with another number of threads: the same id, the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

MODELS = ("xgboost", "lightgbm", "linear", "forest", "permutation")
STREAMED = ("streamed linear", "streamed xgboost", "streamed forest")
"""Explained block by block, as more than 100,000 rows are; here from 500 rows on."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
KIT = """
import json, sys
from pathlib import Path
import joblib, numpy as np, pandas as pd
import explain_step
from explain_step.compute import compute
from explain_step.config import Config
from explain_step.snapshot import ModelRef
from explain_step.step import write_snapshot

folder, threads = Path(sys.argv[1]), int(sys.argv[2])

MANY = 500

def frame(n=120, columns=12):
    rng = np.random.default_rng(5)
    X = pd.DataFrame(rng.normal(size=(n, columns)), columns=[f"c{k}" for k in range(columns)])
    X["c3"] = rng.choice([0.0, 1.0, np.nan], size=n)
    return X

def data(name):
    X = frame(3_060, 5) if name.startswith("streamed") else frame()
    X = X.fillna(-1) if name.endswith(("linear", "forest", "permutation")) else X
    return X.iloc[:60], X.iloc[60:].reset_index(drop=True)

def fit(name, X, score):
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from xgboost import XGBClassifier
    label = (score > 0).astype(int)
    name = name.removeprefix("streamed ")
    if name == "xgboost":
        return XGBClassifier(n_estimators=20, max_depth=3, n_jobs=threads).fit(X, label)
    if name == "lightgbm":
        return LGBMClassifier(n_estimators=20, num_leaves=7, n_jobs=threads, verbose=-1).fit(X, label)
    if name == "forest":
        return RandomForestClassifier(20, max_depth=4, random_state=0, n_jobs=threads).fit(X, label)
    if name == "permutation":
        return LogisticRegression().fit(X, label)
    return LinearRegression().fit(X, score)

def options(name):
    return {"top_features": 2, **({"output": "margin"} if name.endswith(("xgboost", "lightgbm")) else {})}

def labels(X, name):
    score = X["c0"] - X["c1"] * (X["c2"] > 0)
    return score.rename("score") if name.endswith("linear") else (score > 0).astype(int).rename("score")
"""
RECORD = (
    KIT
    + """
for name in sys.argv[3].split(","):
    train, X = data(name)
    model = fit(name, train, train["c0"] - train["c1"] * (train["c2"] > 0))
    joblib.dump(model, folder / f"{name}.joblib")
    made = compute(model, X, labels(X, name), config=Config(**options(name)), background=train, many=MANY)
    ref = ModelRef(model_class=made.subject.model.model_class)
    shot = write_snapshot(made, ref=ref, directory=folder / name, draw=name == "xgboost")
    print(json.dumps([name, shot.id, [c.code for c in shot.caveats]]))
"""
)
REPLAY = (
    KIT
    + """
from functools import partial
from explain_step import replaying
replaying.computed = partial(replaying.computed, many=MANY)
for name in sys.argv[3].split(","):
    train, X = data(name)
    model = joblib.load(folder / f"{name}.joblib")
    if name.endswith(("xgboost", "lightgbm", "forest")):
        model.set_params(n_jobs=threads)
    (path,) = (folder / name).iterdir()
    found = explain_step.replay(path, data=X, y=labels(X, name), background=train, model=model, figures=name == "xgboost")
    print(json.dumps([name, found.record(), explain_step.read(path).manifest["tables"]]))
"""
)


def _run(
    script: str,
    folder: Path,
    threads: int,
    names: tuple[str, ...],
    *,
    environ: Mapping[str, str] = os.environ,
    host: tuple[str, ...] = (),
) -> list[list]:
    environment = {**environ, **dict.fromkeys(THREADS, str(threads)), "PYTHONHASHSEED": str(threads)}
    done = subprocess.run(
        [*host, sys.executable, "-c", script, str(folder), str(threads), ",".join(names)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def _recorded(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Record with one thread; return the snapshots' ids."""
    ids = {}
    for name, identity, caveats in _run(RECORD, folder, 1, names):
        assert ("rows_streamed" in caveats) == (name in STREAMED), name
        ids[name] = identity
    return ids


def _replayed(folder: Path, ids: Mapping[str, str], **place: Any) -> dict[str, tuple[str, dict, dict]]:
    """Replay in another process with two threads: recorded id, record of the replay and recorded tables."""
    found = _run(REPLAY, folder, 2, tuple(ids), **place)
    return {name: (ids[name], record, tables) for name, record, tables in found}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("recorded")
    return folder, _recorded(folder, MODELS)


@pytest.fixture(scope="module")
def replays(recorded) -> dict[str, tuple[str, dict, dict]]:
    return _replayed(*recorded)


@pytest.fixture(scope="module")
def elsewhere(recorded, tmp_path_factory) -> dict[str, tuple[str, dict, dict]]:
    """As near to another machine as this one allows: another host name and user, nothing of the environment kept, another
    home, zone, language and hash seed, and arithmetic for an older processor."""
    home = tmp_path_factory.mktemp("elsewhere")
    environ = {
        "PATH": os.defpath,
        "HOME": str(home),
        "USER": "somebody",
        "TMPDIR": str(home),
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C.UTF-8",
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": "AVX512_ICL X86_V4 X86_V3",
    }
    return _replayed(*recorded, environ=environ, host=_other_host())


def _other_host() -> tuple[str, ...]:
    """Return how a command gets a host name, a user and a network of its own; nothing where the system forbids that."""
    own = ("unshare", "-Urn", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
    try:
        allowed = subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return own if allowed else ()


@pytest.fixture(scope="module")
def streamed(tmp_path_factory) -> dict[str, tuple[str, dict, dict]]:
    folder = tmp_path_factory.mktemp("streamed")
    return _replayed(folder, _recorded(folder, STREAMED))


@pytest.mark.parametrize("name", MODELS)
def test_two_threads_give_the_id_and_the_numbers_of_one(replays, name: str) -> None:
    _check(name, *replays[name])


@pytest.mark.parametrize("name", MODELS)
def test_another_machine_gives_the_same_id(elsewhere, name: str) -> None:
    _check(name, *elsewhere[name])


@pytest.mark.parametrize("name", STREAMED)
def test_many_rows_replay_with_another_number_of_threads(streamed, name: str) -> None:
    _check(name, *streamed[name])


def _check(name: str, identity: str, record: dict, tables: dict) -> None:
    assert record["snapshot_id"] == identity
    assert record["replayed_id"] == identity, [t for t in record["tables"] if t["verdict"] != "identical"]
    assert record["verdict"] in ("identical", "within_tolerance"), record["reason"]
    assert {t["name"] for t in record["tables"]} == set(tables)
    assert len(tables) >= 8
    kind = "exact" if name.endswith(("xgboost", "lightgbm", "forest")) else "numeric"
    assert {t["tolerance"]["class"] for t in tables.values()} == {kind}
    assert {found["input"] for found in record["inputs"]} - {"code"} == {"environment"}
    assert "OMP_NUM_THREADS is '2', recorded '1'" in [found["message"] for found in record["inputs"]]
    assert record["gate"]["changed"] == []


def test_boosted_trees_are_identical_to_the_last_bit(replays) -> None:
    for name in ("xgboost", "lightgbm"):  # a forest adds its trees' answers in the order in which threads end
        assert {t["verdict"] for t in replays[name][1]["tables"]} == {"identical"}, name
    assert replays["xgboost"][1]["files"]["other_bytes"] == []
