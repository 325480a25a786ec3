"""The same content in another process with another number of threads: the same id, the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MODELS = ("xgboost", "lightgbm", "linear", "forest", "permutation")
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

def frame():
    rng = np.random.default_rng(5)
    X = pd.DataFrame(rng.normal(size=(120, 12)), columns=[f"c{k}" for k in range(12)])
    X["c3"] = rng.choice([0.0, 1.0, np.nan], size=120)
    return X

def data(name):
    X = frame().fillna(-1) if name in ("linear", "forest", "permutation") else frame()
    return X.iloc[:60], X.iloc[60:].reset_index(drop=True)

def fit(name, X, score):
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from xgboost import XGBClassifier
    label = (score > 0).astype(int)
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
    return {"top_features": 2, **({"output": "margin"} if name in ("xgboost", "lightgbm") else {})}

def labels(X, name):
    score = X["c0"] - X["c1"] * (X["c2"] > 0)
    return score.rename("score") if name == "linear" else (score > 0).astype(int).rename("score")
"""
RECORD = (
    KIT
    + """
for name in sys.argv[3].split(","):
    train, X = data(name)
    model = fit(name, train, train["c0"] - train["c1"] * (train["c2"] > 0))
    joblib.dump(model, folder / f"{name}.joblib")
    made = compute(model, X, labels(X, name), config=Config(**options(name)), background=train)
    ref = ModelRef(model_class=made.subject.model.model_class)
    shot = write_snapshot(made, ref=ref, directory=folder / name, draw=name == "xgboost")
    print(json.dumps([name, shot.id, str(shot.path)]))
"""
)
REPLAY = (
    KIT
    + """
for name in sys.argv[3].split(","):
    train, X = data(name)
    model = joblib.load(folder / f"{name}.joblib")
    if name in ("xgboost", "lightgbm", "forest"):
        model.set_params(n_jobs=threads)
    (path,) = (folder / name).iterdir()
    found = explain_step.replay(path, data=X, y=labels(X, name), background=train, model=model, figures=name == "xgboost")
    print(json.dumps([name, found.record(), explain_step.read(path).manifest["tables"]]))
"""
)


def _run(script: str, folder: Path, threads: int) -> list[list]:
    environment = {**os.environ, **dict.fromkeys(THREADS, str(threads)), "PYTHONHASHSEED": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(threads), ",".join(MODELS)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.fixture(scope="module")
def replays(tmp_path_factory) -> dict[str, tuple[str, dict, dict]]:
    folder = tmp_path_factory.mktemp("threads")
    ids = {name: identity for name, identity, _ in _run(RECORD, folder, 1)}
    return {name: (ids[name], record, tables) for name, record, tables in _run(REPLAY, folder, 2)}


@pytest.mark.parametrize("name", MODELS)
def test_two_threads_give_the_id_and_the_numbers_of_one(replays, name: str) -> None:
    identity, record, tables = replays[name]
    assert record["snapshot_id"] == identity
    assert record["replayed_id"] == identity, [t for t in record["tables"] if t["verdict"] != "identical"]
    assert record["verdict"] in ("identical", "within_tolerance"), record["reason"]
    assert {t["name"] for t in record["tables"]} == set(tables)
    assert len(tables) >= 8
    kind = "exact" if name in ("xgboost", "lightgbm", "forest") else "numeric"
    assert {t["tolerance"]["class"] for t in tables.values()} == {kind}
    assert {found["input"] for found in record["inputs"]} - {"code"} == {"environment"}
    assert "OMP_NUM_THREADS is '2', recorded '1'" in [found["message"] for found in record["inputs"]]
    assert record["gate"]["changed"] == []


def test_boosted_trees_are_identical_to_the_last_bit(replays) -> None:
    for name in ("xgboost", "lightgbm"):  # a forest adds its trees' answers in the order in which threads end
        assert {t["verdict"] for t in replays[name][1]["tables"]} == {"identical"}, name
    assert replays["xgboost"][1]["files"]["other_bytes"] == []
