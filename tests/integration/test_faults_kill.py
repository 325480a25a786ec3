"""``kill -9`` at ten points of the step and of its way to MLflow: no manifest over wrong bytes, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).parents[1] / "kill_driver.py"
OF_THE_STEP, OF_THE_WAY = 3, 7


@pytest.mark.timeout(900)
@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the driver kills forks of itself, and this system has no fork"
)
def test_a_killed_step_leaves_no_false_manifest_and_is_finished_later(migrated: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(DRIVER), str(tmp_path / "kill"), str(migrated)]
    command += [str(OF_THE_STEP), str(OF_THE_WAY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    found = report["found"]
    assert [case["killed"] for case in found] == [True] * (OF_THE_STEP + OF_THE_WAY)
    for case in found:
        assert case["left"]["wrong"] == [], case
        assert set(case["left"]["manifests"]) <= {report["reference"]}, case
        assert set(case["first"]) <= {"stored"}, case
        assert case["second"] == [], case
        # what was spooled is finished by resume; what was killed earlier is made again, with the same id
        assert case["by_resume"] or case["again"] == report["reference"], case
        assert (case["ids"], case["verdicts"]) == ([report["reference"]], ["pass"]), case
        assert case["tags"][1] == report["reference"], case
        assert case["tags"][0] in ("complete", "degraded"), case
    assert sum(bool(case["by_resume"]) for case in found) >= OF_THE_WAY // 2
