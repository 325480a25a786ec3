"""Reasons, dates and shuffled inputs in the words of the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from page_fixture import degraded

import explain_step
from explain_step.report import dependence, importance
from explain_step.report.format import plain
from explain_step.report.tables import Column, Labels, column, make_table
from explain_step.report.view import view
from explain_step.types import Artifact, Caveat

NONE = Labels()
ROOM = Path(explain_step.__file__).parent


def test_a_percentage_is_spelled_in_one_way():
    """Page, card, figures, tables and refusals come from these files."""
    spaced = re.compile(r"[0-9}] %(?! ?[(}\w\"'])")
    files = [*ROOM.rglob("*.py"), *ROOM.rglob("*.j2")]
    assert len(files) > 100
    found = [
        f"{path.name}: {line}"
        for path in files
        for line in path.read_text().splitlines()
        if spaced.search(line)
    ]
    assert found == []


def test_a_reason_keeps_the_semicolons_of_its_caveats():
    stuck = "Columns with a single value: 'year'; their attribution is zero for that reason alone."
    caveat = Caveat(code="constant_columns", section="data", message=stuck, degrades=True)
    context = replace(degraded(), reason=f"performance: no labels; {stuck}; Another one.", caveats=(caveat,))
    assert view(context).reasons == ("Performance: no labels.", stuck, "Another one.")


def test_dates_are_told_as_dates():
    table = pd.DataFrame(
        {
            "output": "y",
            "feature": ["sold"] * 3 + ["size"],
            "curve": "shap",
            "x": [2933.0, 3272.4, np.nan, 2933.0],
            "ci_low": [-330.0, 340.0, 0.0, -1.0],
            "ci_high": [-320.0, 360.0, 2.0, 1.0],
        }
    ).assign(value=[-326.0, 351.0, 1.0, 0.0], level=[None, None, "(missing)", None])
    meta = {"features": {"sold": {"kind": "datetime"}, "size": {"kind": "numeric"}}}
    dated = dependence._dated(Artifact(name="dependence", kind="dependence", table=table, meta=meta))
    text = " ".join(plain(t) for t in dependence.sentences(dated, order=["sold", "size"], labels=NONE))
    assert "from \u2212326 at 1978-01-12 to +351 at 1978-12-17" in text
    shown = dependence.attribution_curves(dated, order=["sold", "size"])
    assert shown["sold"]["shown"].tolist() == ["1978-01-12", "1978-12-17", "(missing)"]
    assert shown["size"]["shown"].tolist() == ["2933"]


def test_shuffling_without_a_clear_loss_names_no_leader():
    table = pd.DataFrame(
        {
            "feature": ["age", "debt"],
            "mean_abs_shap": [2.0, 1.0],
            "permutation_importance": [0.4, 0.1],
            "permutation_ci_low": [-0.1, -0.2],
        }
    )
    found = importance._shuffled(table, labels=NONE)
    assert plain(found[0]) == "Shuffling any one input costs no performance that stands out from chance."
    clear = importance._shuffled(table.assign(permutation_ci_low=[0.1, -0.2]), labels=NONE)
    assert plain(clear[0]) == "Shuffling age also costs the most performance."


def test_a_column_with_nothing_in_it_is_left_out():
    frame = pd.DataFrame({"row_id": ["", ""], "y_true": ["yes", None]})
    columns = (column("row_id"), Column(title="True", source="y_true", kind="text"))
    made = make_table(frame, columns, caption=("Rows",), labels=NONE)
    assert [c.title for c in made.columns] == ["True"]
