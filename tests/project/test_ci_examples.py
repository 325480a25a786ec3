"""The CI examples are YAML, and every command and option in them and in the how-to exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from explain_step import cli
from explain_step.gate.policy import load_policy

ROOT = Path(__file__).parents[2]
PIPELINES = sorted((ROOT / "docs" / "ci").glob("*.yml"))
PAGES = [*PIPELINES, ROOT / "docs" / "how-to-gate.md", ROOT / "README.md"]


def commands(text: str) -> list[str]:
    """Return the command lines of ours in a text, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return re.findall(r"^\s*(?:- |run: |\$ )*(explain-step [a-z][^\n`#]*)", joined, flags=re.M)


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.name)
def test_a_pipeline_judges_and_then_promotes(path: Path) -> None:
    parsed: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    jobs = parsed.get("jobs", parsed)
    assert jobs["promote"]["needs"] in ("gate", ["gate"])
    gate, promote = str(jobs["gate"]), str(jobs["promote"])
    assert "explain-step gate" in gate
    assert "--junit reports/gate.xml" in gate
    assert "explain-step promote" in promote
    assert "continue-on-error" not in gate
    assert jobs["gate"].get("allow_failure") is None


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_every_command_is_accepted(path: Path) -> None:
    found = commands(path.read_text(encoding="utf-8"))
    assert found
    for line in found:
        _, name, *arguments = shlex.split(line)
        options = {o for p in cli.cli.commands[name].params for o in (*p.opts, *p.secondary_opts)}
        used = [a.partition("=")[0] for a in arguments if a.startswith("--")]
        assert set(used) <= options, line


@pytest.mark.parametrize("path", [*PIPELINES, ROOT / "docs" / "how-to-gate.md"], ids=lambda p: p.name)
def test_the_gate_commands_parse(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    for line in commands(path.read_text(encoding="utf-8")):
        _, name, *arguments = shlex.split(line)
        if name in ("gate", "promote", "review"):
            context = cli.cli.commands[name].make_context(name, arguments)
            assert isinstance(context, click.Context)


def test_the_policies_that_are_shown_are_policies() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "how-to-gate.md").read_text(), flags=re.S)
    assert shown
    for text in shown:
        load_policy(yaml.safe_load(text))
    assert load_policy(ROOT / "examples" / "policy.yaml").name == "mortgage"
