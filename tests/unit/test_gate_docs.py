"""The page about the policy says what the code does, and the example policies are policies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from explain_step.gate import RULES, Policy, load_policy
from explain_step.gate.decision import WAIVER
from explain_step.gate.problems import _model_in

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")


def example() -> str:
    found = re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_table_of_rules_is_the_rules() -> None:
    rows = re.findall(r"^\| (GATE\d+) \| ([^|]+) \|", PAGE, flags=re.MULTILINE)
    assert [(code, title.strip()) for code, title in rows] == [(r.code, r.title) for r in RULES]
    assert WAIVER in PAGE


def test_the_commented_example_is_a_policy_and_shows_every_key(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(example(), encoding="utf-8")
    assert load_policy(path).drift is not None
    shown = yaml.safe_load(example())
    keys: dict[type[BaseModel], set[str]] = {}
    _collect(Policy, shown, into=keys)
    for schema, there in keys.items():
        assert there == set(schema.model_fields), schema.__name__


def _collect(schema: type[BaseModel], shown: Any, *, into: dict[type[BaseModel], set[str]]) -> None:
    """Note which keys of each part of the schema an example shows."""
    for entry in shown if isinstance(shown, list) else [shown]:
        into.setdefault(schema, set()).update(entry)
        for name, value in entry.items():
            inner = _model_in(schema.model_fields[name].annotation)
            if inner is not None:
                _collect(inner, value, into=into)


WORDS = {"none": (None, ()), "no limit": (None,), "every": (None, ())}
"""How the page tells a default that is no value."""


def told() -> Iterator[tuple[tuple[str, ...], Any, str]]:
    """Yield each commented key of the example: its path, its value there, and the comment."""
    path: dict[int, str] = {}
    for line in example().splitlines():
        found = re.fullmatch(r"(?P<indent>[ -]*)(?P<key>\w+): *(?P<value>.*?) +# (?P<comment>.*)", line)
        at = len(line) - len(line.lstrip(" -"))
        path = {depth: key for depth, key in path.items() if depth < at}
        path[at] = line.strip(" -").partition(":")[0]
        if found is not None:
            yield tuple(path.values()), yaml.safe_load(found["value"]), found["comment"]


def test_the_defaults_that_the_example_tells_are_the_defaults() -> None:
    checked = 0
    for (*parents, key), value, comment in told():
        schema: Any = Policy
        for parent in parents:
            schema = _model_in(schema.model_fields[parent].annotation)
        said = re.search(rf"\bdefault(?: (true|false|\d+|{'|'.join(WORDS)}))?", comment)
        if said is not None:
            default = schema.model_fields[key].get_default(call_default_factory=True)
            shown = value if said[1] is None else yaml.safe_load(said[1])
            assert default in WORDS.get(
                str(said[1]), (tuple(shown) if isinstance(shown, list) else shown,)
            ), key
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("policy*.yaml")), ids=lambda p: p.name)
def test_the_example_policies_are_policies(path: Path) -> None:
    found = load_policy(path)
    assert found.protected.aliases
    assert found.assertions
    assert Policy.parse(found.model_dump(mode="json")).digest == found.digest
