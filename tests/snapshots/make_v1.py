"""Write ``tests/snapshots/v1/loans``: a snapshot of the first format, which every later version must read.

Run it once, when a new version of the format is begun (then as ``make_v2.py`` with a folder of its own), and never
again for a released one: the point of the stored bytes is that no later code wrote them. Until the first release it
may be run again when the format changes on purpose::

    python tests/snapshots/make_v1.py

The figures are left out but for one, and the page is a stub: both are views, and readers use the tables. The facts of
the machine are replaced by a few fixed ones, so that whoever runs it gets the same bytes but for times.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from explain_step import plots, snapshot
from explain_step.compute import Explanation, compute, judge
from explain_step.config import Config
from explain_step.quantity import quantity
from explain_step.snapshot import provenance

FOLDER = Path(__file__).parent / "v1" / "loans"
ROWS = 60
MACHINE = {
    "machine": "x86_64",
    "os": "Linux",
    "packages": {"explain-step": "0.1.0"},
    "python": {"version": "3.11"},
}


def explanation() -> Explanation:
    """Return the explanation of a linear model of three columns on 60 rows made by arithmetic."""
    from sklearn.linear_model import LinearRegression

    k = np.arange(ROWS)
    X = pd.DataFrame({"income": k * 7 % 5 + 0.5, "debt": k * 5 % 7 / 2.0, "age": 20.0 + k * 3 % 40})
    y = pd.Series(2 * X["income"] - X["debt"] + (k % 3 - 1) / 2, name="limit")
    model = LinearRegression().fit(X, y)
    options: dict[str, Any] = {"segments": ["region"], "top_features": 2, "feature_labels": {"debt": "Debt"}}
    rows = X.assign(region=np.where(k % 2, "north", "south"))
    return compute(model, rows, y, config=Config.parse(options), background=X)


def write(folder: Path) -> snapshot.Snapshot:
    """Write the snapshot to ``folder``, which is replaced."""
    made = explanation()
    status, reason = judge(made)
    figures = plots.render({a.name: a for a in made.artifacts if a.name == "importance"}, labels={})[:1]
    parts = snapshot.SnapshotParts(
        model=snapshot.ModelRef(model_class=made.subject.model.model_class),
        artifacts=made.artifacts,
        attributions=made.attributions,
        subject=made.subject,
        scores=made.scores,
        figures=lambda: figures,
        status=status,
        reason=reason,
        caveats=made.caveats,
        missing=made.missing,
        config=made.config,
        quantity=quantity(made.subject, made.attributions),
        events=made.events,
        previous=None,
        page=lambda identity: f"<!doctype html><title>{identity}</title><p>A stub: see the tables.</p>\n",
        card=lambda identity: f"# Snapshot {identity}\n\nA stub: see the tables.\n",
    )
    fixed = mock.patch.object(provenance, "environment", return_value=MACHINE)
    with tempfile.TemporaryDirectory() as parent, fixed:
        written = snapshot.write(Path(parent), parts=parts)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(written.path, folder)
    return snapshot.read_directory(folder)


if __name__ == "__main__":
    sys.stdout.write(f"{write(FOLDER).id}\n")
