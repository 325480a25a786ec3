"""Replay without MLflow: what is needed, which input differs, and what becomes of the verdict."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import explain_step
from explain_step.cli import invoke
from explain_step.replay_answers import model_told
from explain_step.replay_result import Replay, from_record

GOLDEN = Path(__file__).parents[1] / "snapshots" / "v1" / "loans"


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    X = pd.DataFrame(rng.normal(size=(80, 3)), columns=["income", "debt", "age"])
    region = np.where(np.arange(80) % 2, "north", "south")
    return X.assign(region=region, limit=2 * X["income"] - X["debt"] + rng.normal(scale=0.1, size=80))


def model(frame: pd.DataFrame, *, nudge: float = 0.0) -> LinearRegression:
    return LinearRegression().fit(
        frame[["income", "debt", "age"]], frame["limit"] + nudge * frame["age"] * frame["income"].mean()
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> explain_step.Snapshot:
    frame = rows()
    background = frame[["income", "debt", "age"]].head(40) + 0.5
    return explain_step.explain(
        model(frame),
        frame,
        "limit",
        background=background,
        segments=["region"],
        top_features=1,
        directory=tmp_path_factory.mktemp("recorded"),
    )


def again(recorded, frame: pd.DataFrame | None = None, **changes) -> Replay:
    frame = rows() if frame is None else frame
    given = {
        "data": frame,
        "background": rows()[["income", "debt", "age"]].head(40) + 0.5,
        "model": model(rows()),
        "figures": False,
        **changes,
    }
    return explain_step.replay(recorded.path, **given)


def differing(found: Replay) -> set[str]:
    """Return the inputs that differ; the source of this package may be edited while its tests run."""
    return {d.input for d in found.inputs} - {"code"}


def test_the_same_inputs_give_the_same_bits(recorded) -> None:
    found = again(recorded, figures=True)
    assert found.verdict == "identical", found.reason
    assert found.replays
    assert found.replayed_id == found.snapshot_id == recorded.id
    assert {t.name for t in found.tables} == set(recorded.tables)
    assert differing(found) == set()
    assert found.files["other_bytes"] == []
    assert found.files["same_bytes"] >= 5
    assert from_record(json.loads(json.dumps(found.record()))).record() == found.record()


def test_tolerances_stand_in_the_manifest_before_any_replay(recorded) -> None:
    for entry in recorded.manifest["tables"].values():
        assert entry["tolerance"] == {
            "class": "numeric",
            "absolute": 1e-9,
            "relative": 1e-7,
            "relative_elsewhere": 1e-5,
        }


def test_one_changed_cell_is_found_and_its_column_named(recorded) -> None:
    frame = rows()
    frame.loc[79, "age"] += 1e-9
    found = again(recorded, frame)
    assert found.verdict == "different"
    assert differing(found) == {"data"}
    assert "column age" in found.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.head(79), "79 instead of 80"),
        (lambda f: f.rename(columns={"region": "area"}).assign(region="north"), "columns more ['area']"),
        (lambda f: f.assign(age=f["age"].astype("float32")), "age is float32, recorded float64"),
        (lambda f: f.assign(limit=f["limit"] + 1), "the labels are others"),
        (lambda f: f[["debt", "income", "age", "region", "limit"]], "columns stand in another order"),
        (lambda f: f.iloc[::-1], "the same rows stand in another order"),
    ],
)
def test_other_rows_say_how(recorded, change, said: str) -> None:
    found = again(recorded, change(rows()))
    assert found.verdict == "different"
    assert said in found.reason


def test_another_background_is_an_other_input(recorded) -> None:
    found = again(recorded, background=rows()[["income", "debt", "age"]].head(40))
    assert found.verdict == "different"
    assert [d.message for d in found.inputs if d.input != "code"] == ["the background rows are others"]


def test_another_model_is_told_by_its_answers(recorded) -> None:
    found = again(recorded, model=model(rows(), nudge=0.5))
    assert found.verdict == "different"
    assert differing(found) == {"model"}
    assert "answers otherwise" in found.reason
    assert {t.name for t in found.tables if t.verdict == "different"} >= {"attributions", "importance"}


def test_another_sample_of_the_same_rows_is_not_taken_for_another_index(recorded, tmp_path) -> None:
    """It is spread over the output: a library that moves that a little draws others, which were paired by their places."""
    kept = recorded.manifest["config"] | {"max_rows": 30}
    shot = explain_step.explain(
        model(rows()),
        rows(),
        "limit",
        background=rows()[["income", "debt", "age"]].head(40) + 0.5,
        config=kept,
        directory=tmp_path,
    )
    found = again(shot, model=model(rows(), nudge=1.0))
    (told,) = (d.message for d in found.inputs if d.input == "model")
    assert "answers otherwise on the recorded rows" in told
    assert (
        float(re.search(r"differs by up to ([\d.e+-]+)", told)[1]) < 0.5
    )  # paired by their places: 3 and more
    assert any("another sample" in note for note in found.notes)
    index = again(shot, rows().set_axis(range(500, 580)))
    assert (index.verdict, differing(index)) == ("identical", set())
    assert any("another index" in note for note in index.notes)


def test_a_model_with_the_recorded_files_that_answers_otherwise_is_told_of_the_environment(recorded) -> None:
    tables = {**recorded.tables, "attributions": recorded.tables["attributions"].assign(prediction=9.0)}
    for digested, name in ((True, "environment"), (False, "model")):
        (told,), notes = model_told(
            recorded, replace(recorded, tables=tables), (), renamed=tables, digested=digested
        )
        assert (told.input, notes) == (name, ())
        assert "answers otherwise" in told.message


def _one_cell(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[79, "age"] += 1e-9
    return frame


@pytest.mark.parametrize(
    ("frame", "changes", "names"),
    [
        (_one_cell(rows()), {}, {"data", "model"}),
        (rows().assign(limit=rows()["limit"] + 1), {}, {"data", "model"}),
        (rows().assign(region="north"), {}, {"data", "model"}),
        (rows().head(70), {}, {"data", "model"}),
        (rows(), {"background": rows()[["income", "debt", "age"]].tail(40)}, {"data", "model"}),
        (rows(), {"seed": 5}, {"seed", "model"}),
        (rows(), {"seed": 5, "min_segment": 25}, {"seed", "config", "model"}),
        (_one_cell(rows()), {"seed": 5, "min_segment": 25}, {"data", "seed", "config", "model"}),
    ],
    ids=["cell", "labels", "unread column", "fewer rows", "background", "seed", "config", "all"],
)
def test_every_input_that_differs_is_named(recorded, frame, changes, names: set[str]) -> None:
    """An object has no files to digest: it is told by its answers, on whatever is still the recorded input."""
    for fitted, expected in ((model(rows(), nudge=0.5), names), (model(rows()), names - {"model"})):
        config = {**recorded.manifest["config"], **{k: v for k, v in changes.items() if k != "background"}}
        given = {k: v for k, v in changes.items() if k == "background"}
        found = again(recorded, frame, model=fitted, config=config, **given)
        assert found.verdict == "different"
        assert differing(found) == expected
        assert all(f"{name}: " in found.reason for name in expected)


def test_where_nothing_is_comparable_it_is_said_that_the_model_may_be_another(tmp_path) -> None:
    frame = rows().drop(columns="region")
    shot = explain_step.explain(model(frame), frame, "limit", top_features=1, directory=tmp_path)
    changed = _one_cell(frame.copy())
    for fitted in (model(frame), model(frame, nudge=0.5)):
        found = explain_step.replay(shot.path, data=changed, model=fitted, figures=False)
        assert differing(found) == {"data"}
        assert any("do not tell whether it is the recorded one" in note for note in found.notes)
    same = explain_step.replay(shot.path, data=frame, model=model(frame), figures=False)
    assert not any("do not tell" in note for note in same.notes)


def test_rounding_noise_is_within_tolerance(recorded) -> None:
    noisy = model(rows())
    noisy.coef_ = noisy.coef_ * (1 + 1e-13)
    found = again(recorded, model=noisy)
    assert found.verdict == "within_tolerance"
    assert found.replayed_id == recorded.id
    assert max(t.largest or 0 for t in found.tables) < 1e-9


def test_another_seed_and_another_option_are_told_apart(recorded) -> None:
    config = {**recorded.manifest["config"], "seed": 5, "min_segment": 25}
    found = again(recorded, config=config)
    assert found.verdict == "different"
    assert differing(found) == {"seed", "config"}
    assert "seed is 5, recorded 0" in found.reason


def test_rows_with_another_index_are_matched(recorded) -> None:
    found = again(recorded, rows().set_axis([f"r{k}" for k in range(80)]))
    assert found.verdict in ("identical", "within_tolerance"), found.reason
    assert any("matched by position" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": None}, "holds no rows"),
        ({"background": None}, "40 background rows"),
        ({"model": None}, "names no logged model"),
        ({"frame": rows().drop(columns="limit")}, "had labels (limit)"),
        ({"frame": rows().drop(columns="debt")}, "debt"),
    ],
)
def test_what_is_lacking_is_said_and_nothing_is_decided(recorded, changes, said: str) -> None:
    found = again(recorded, **changes)
    assert found.verdict == "not_replayable"
    assert said in found.reason
    assert not found.replays


def test_the_recorded_source_of_the_rows_is_used(tmp_path) -> None:
    place = tmp_path / "rows.parquet"
    rows().to_parquet(place)
    shot = explain_step.explain(
        model(rows()),
        place,
        "limit",
        dataset={"source": str(place)},
        top_features=1,
        directory=tmp_path / "s",
    )
    found = explain_step.replay(shot.path, model=model(rows()), figures=False)
    assert found.verdict == "identical", found.reason
    place.unlink()
    assert explain_step.replay(shot.path, model=model(rows())).verdict == "not_replayable"


def test_work_that_the_budget_cut_is_never_called_reproduced(tmp_path) -> None:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 12)), columns=[f"c{k}" for k in range(12)])

    def slow(frame: pd.DataFrame) -> np.ndarray:
        time.sleep(len(frame) * 2e-6)
        return np.tanh(frame.to_numpy() @ np.arange(12.0))

    options = {"task": "regression", "budget": 0.05, "top_features": 1}
    shot = explain_step.explain(slow, X, directory=tmp_path, **options)
    assert "budget_cut" in {caveat.code for caveat in shot.caveats}
    assert {entry["tolerance"]["class"] for entry in shot.manifest["tables"].values()} == {"statistical"}
    found = explain_step.replay(shot.path, data=X, model=slow, figures=False)
    judged = {t.name: t for t in found.tables if t.verdict != "identical"}
    assert all(t.kind == "statistical" for t in found.tables)
    assert "within_tolerance" not in {t.verdict for t in judged.values()}


def test_a_slow_machine_cuts_nothing_that_the_recording_did_not_cut(recorded, monkeypatch) -> None:
    replaying = import_module("explain_step.replaying")
    true, budgets = replaying.computed, []

    def watched(*arguments, config, **given):
        budgets.append(config.budget)
        return true(*arguments, config=config, **given)

    monkeypatch.setattr(replaying, "computed", watched)
    assert again(recorded).verdict == "identical"
    assert budgets == [replaying.UNHURRIED]
    assert recorded.manifest["config"]["budget"] == 60


def test_a_flipped_gate_is_different_within_any_tolerance(recorded, tmp_path) -> None:
    noisy = model(rows())
    noisy.coef_ = noisy.coef_ * (1 + 1e-12)
    frame, background = rows(), rows()[["income", "debt", "age"]].head(40) + 0.5
    other = explain_step.explain(
        noisy, frame, "limit", background=background, segments=["region"], top_features=1, directory=tmp_path
    )
    bounds = [s.tables["performance"].set_index("metric").loc["rmse", "ci_high"] for s in (recorded, other)]
    assert bounds[0] != bounds[1]
    policy = {"version": 1, "performance": [{"name": "rmse", "max": float(min(bounds))}]}
    found = again(recorded, model=noisy, policy=policy)
    assert {t.verdict for t in found.tables} <= {"identical", "within_tolerance"}
    assert found.verdict == "different"
    assert "GATE021" in found.reason
    same = again(recorded, policy=policy)
    assert (same.verdict, same.gate["changed"]) == ("identical", [])


def test_changed_bytes_are_not_replayed(recorded, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(recorded.path, copy)
    (copy / "card.md").write_text("another\n")
    with pytest.raises(explain_step.SnapshotError, match=r"does not verify.*card\.md"):
        explain_step.replay(copy, data=rows(), model=model(rows()))


def test_a_snapshot_without_tolerances_gets_the_documented_ones() -> None:
    k = np.arange(60)
    X = pd.DataFrame({"income": k * 7 % 5 + 0.5, "debt": k * 5 % 7 / 2.0, "age": 20.0 + k * 3 % 40})
    y = pd.Series(2 * X["income"] - X["debt"] + (k % 3 - 1) / 2, name="limit")
    data = X.assign(region=np.where(k % 2, "north", "south"))
    fitted = LinearRegression().fit(X, y)
    found = explain_step.replay(GOLDEN, data=data, y=y, background=X, model=fitted, figures=False)
    assert "tolerance" not in explain_step.read(GOLDEN).manifest["tables"]["importance"]
    assert {t.kind for t in found.tables} == {"numeric"}
    assert not differing(found) & {"data", "config", "seed", "model"}, found.reason


@pytest.mark.parametrize("arguments", [{"env": "elsewhere"}, {"wheels": "/tmp"}])
def test_wrong_usage_is_refused(recorded, arguments) -> None:
    with pytest.raises(explain_step.InvalidInput, match=r"Argument (env|wheels)"):
        again(recorded, **arguments)


def test_the_command_says_what_it_found(recorded, tmp_path, capsys) -> None:
    rows().to_parquet(tmp_path / "rows.parquet")
    (rows()[["income", "debt", "age"]].head(40) + 0.5).to_parquet(tmp_path / "background.parquet")
    arguments = ["replay", str(recorded.path), "--data", str(tmp_path / "rows.parquet"), "--no-figures"]
    assert invoke(arguments) == 3
    assert "not_replayable: the rows were compared with 40 background rows" in capsys.readouterr().out
    arguments += ["--background", str(tmp_path / "background.parquet")]
    assert invoke([*arguments, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["reason"].startswith("the snapshot names no logged model")
    assert invoke(["replay", str(recorded.path), "--env", "elsewhere"]) == 2
