"""Values that must not be published are planted in the rows and looked for in every byte of the snapshot."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from tracking_kit import Store

import explain_step
from explain_step.artifacts.builder import Builder
from explain_step.compute import compute, judge
from explain_step.config import Config
from explain_step.types import Section

LEVEL, ROW, LOW, HIGH = "CANARY-7f3a", "ROW-91c2", -7654.321, 987654.321


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "income": rng.normal(50, 10, 200),
            "debt": rng.normal(5, 2, 200),
            "town": rng.choice(["a", "b"], 200),
        },
        index=[ROW if i == 17 else f"r{i}" for i in range(200)],
    )
    X.loc[ROW, ["income", "debt", "town"]] = [HIGH, LOW, LEVEL]
    return X


def every_text(root: Path) -> str:
    """All bytes of a snapshot as text, Parquet tables decompressed."""
    parts = []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        parts.append(path.name)
        parts.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".parquet":
            parts.append(pd.read_parquet(path).to_csv(float_format="%.3f"))
            parts.append(pd.read_parquet(path).to_csv())
    return "\n".join(parts)


def snapshot(**options: object) -> str:
    X = frame()
    y = X["debt"].clip(0, 10).rename("loss")

    def score(rows: pd.DataFrame) -> np.ndarray:
        return np.asarray(
            np.tanh(rows["income"] / 50) + rows["debt"].clip(0, 10) + (rows["town"] == "a"), dtype=float
        )

    found = explain_step.explain(
        score, X, y, task="regression", segments=["town", "income", "debt"], **options
    )
    assert {"importance", "dependence", "segments", "examples"} <= set(found.tables)
    return every_text(found.path)


def test_strict_publishes_no_row_no_extreme_and_no_rare_level() -> None:
    text = snapshot(privacy="strict")
    for canary in (LEVEL, ROW, "987654", "-7654", "7654.3"):
        assert canary not in text, canary


def test_redacted_columns_are_published_nowhere() -> None:
    text = snapshot(redact=["town", "income"])
    for canary in (LEVEL, "987654"):
        assert canary not in text, canary


def test_the_search_itself_finds_what_standard_mode_publishes() -> None:
    text = snapshot()
    assert LEVEL in text
    assert ROW in text


def picky(rows: pd.DataFrame) -> np.ndarray:
    if (rows["town"] == LEVEL).any():
        msg = f"could not convert {LEVEL!r}"
        raise ValueError(msg)
    return rows["debt"].to_numpy()


@pytest.mark.parametrize("options", [{}, {"privacy": "strict"}, {"redact": ["town"]}])
def test_what_a_model_raises_is_published_in_standard_mode_only(
    options: dict[str, object], active_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with mlflow.start_run() as run:
        logged = explain_step.log_explanations(picky, frame(), task="regression", **options)
    tags = active_store.client.get_run(run.info.run_id).data.tags
    assert (logged.status, tags["explain_step.status"]) == ("failed", "failed")
    assert "ValueError" in logged.reason or options
    assert (LEVEL in str([logged.reason, tags])) is not bool(options)
    assert LEVEL in caplog.text, "the log of the training process says what was wrong"


def broken(*_: object, **__: object) -> Section:
    msg = f"no row {ROW!r} please"
    raise ValueError(msg)


@pytest.mark.parametrize(("privacy", "said"), [("standard", True), ("strict", False)])
def test_a_section_that_fails_keeps_the_values_to_itself(privacy: str, said: bool) -> None:
    config = Config(task="regression", privacy=privacy)
    found = compute(
        lambda rows: rows["debt"].to_numpy(),
        frame(),
        config=config,
        builders=(Builder(name="segments", required=True, build=broken),),
    )
    status, reason = judge(found)
    assert status == "incomplete"
    assert reason.startswith("segments: failed with ValueError")
    assert (ROW in reason) is said
