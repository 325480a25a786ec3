"""A stored snapshot of the first format: what was once written stays readable and verifiable, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import explain_step

GOLDEN = Path(__file__).parents[1] / "snapshots" / "v1" / "loans"
ID = "15220feb2a7e47f0e0c20266668b41a4d4c1a2446af32d9b55e8f6378045a73d"
CONTRACT = {
    "importance": "output feature mean_abs_shap ci_low ci_high rank rank_low rank_high mean_shap share "
    "permutation_importance permutation_ci_low permutation_ci_high",
    "dependence": "output feature curve x value ci_low ci_high count",
    "segments": "segment level n metric metric_value metric_ci_low metric_ci_high output feature mean_abs_shap "
    "ci_low ci_high difference difference_ci_low difference_ci_high p_adjusted",
    "examples": "example kind row_id y_true y_pred prediction output feature feature_value shap base_value",
    "scores": "score variant value ci_low ci_high direction n",
}


def test_it_is_read_with_its_identity_and_status() -> None:
    shot = explain_step.read(GOLDEN)
    assert (shot.id, shot.status) == (ID, "complete")
    assert shot.caveats == ()
    assert shot.model.model_class == "LinearRegression"
    assert shot.manifest["snapshot_id"] == ID


def test_every_byte_verifies() -> None:
    assert [f.verdict for f in explain_step.verify(GOLDEN)] == ["pass"]


def test_a_changed_byte_is_named(tmp_path: Path) -> None:
    copy = tmp_path / "loans"
    shutil.copytree(GOLDEN, copy)
    table = copy / "tables" / "importance.csv"
    table.write_bytes(
        table.read_bytes().replace(b"\n", b"\r\n")
    )  # what a checkout with line endings would do
    failed = [f for f in explain_step.verify(copy) if f.verdict == "fail"]
    assert len(failed) == 1
    assert "importance.csv" in failed[0].message


@pytest.mark.parametrize("name", CONTRACT)
def test_tables_have_the_columns_readers_rely_on(name: str) -> None:
    table = explain_step.read(GOLDEN).tables[name]
    assert set(CONTRACT[name].split()) <= set(table.columns)
    assert len(table) > 0


def test_values_are_the_ones_that_were_computed() -> None:
    shot = explain_step.read(GOLDEN)
    importance = shot.tables["importance"].set_index("feature")
    assert importance["mean_abs_shap"].to_dict() == pytest.approx(
        {"income": 2.3996002455480987, "debt": 0.851110784997208, "age": 0.02312719203392646}, rel=1e-12
    )
    assert importance["rank"].to_dict() == {"income": 1.0, "debt": 2.0, "age": 3.0}
    stored = shot.tables["attributions"]
    total = stored["base_value"] + stored[[c for c in stored if c.startswith("shap:")]].sum(axis=1)
    np.testing.assert_allclose(total, stored["prediction"], rtol=1e-12)
    assert set(shot.tables["segments"]["level"]) == {"(all)", "north", "south"}
    assert {s.name for s in shot.scores} >= {"additivity_error"}


def test_line_endings_are_never_converted_in_a_checkout() -> None:
    rules = (GOLDEN.parents[3] / ".gitattributes").read_text(encoding="utf-8")
    assert "tests/snapshots/v*/** -text" in rules.splitlines()


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 150_000
