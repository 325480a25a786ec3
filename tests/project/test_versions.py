"""pyproject.toml, conda.yaml, the lock file and the oldest resolution speak of the same versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


APART = ("all", "spark", "bom", "crate", "croissant", "openssf")
"""Extras that are tested in their locked versions alone: their own dependencies are large, or nobody else's."""


def requirements(*, without: tuple[str, ...] = ("all",)) -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *(
            line
            for extra, v in project["optional-dependencies"].items()
            if extra not in without
            for line in v
        ),
    ]
    return dict(re.fullmatch(r"([\w.-]+)(.*)", line).groups() for line in lines)


def test_conda_states_the_versions_of_pyproject() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    pip = conda["dependencies"][-1]["pip"]
    stated = dict(re.fullmatch(r"([\w.-]+)(.*)", line).groups() for line in pip if not line.startswith("-e"))
    wanted = requirements()
    assert {name: stated[name] for name in stated if name in wanted} == {
        n: wanted[n] for n in stated if n in wanted
    }
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.match(r"[\w.-]+", line).group() for line in base} <= set(stated)
    assert (
        f"python{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['requires-python']}"
        in conda["dependencies"]
    )


def test_oldest_resolution_pins_each_lower_bound() -> None:
    pins = dict(
        re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements/oldest.txt").read_text(), flags=re.M)
    )
    for name, bound in requirements(without=APART).items():
        wanted = bound.removeprefix(">=").split(".")
        assert pins[name].split(".")[: len(wanted)] == wanted, name


def test_lock_covers_three_pythons() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    assert lock["requires-python"] == ">=3.11"
    wheels = [w["url"] for p in lock["package"] if p["name"] == "numpy" for w in p.get("wheels", [])]
    for tag in ("cp311", "cp312", "cp313"):
        assert any(f"-{tag}-" in url for url in wheels), tag
