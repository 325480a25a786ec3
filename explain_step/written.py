"""Files that people write, YAML or JSON, to plain values, without the traps of either."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from explain_step.canonical import unique_keys

MAX_VALUES = 100_000
"""Values after aliases are followed: a few lines of YAML can stand for billions."""
MAX_MERGED = 20
"""Mappings that one ``<<`` may list."""
_MERGE = "tag:yaml.org,2002:merge"
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")


def parse(text: str, *, suffix: str) -> Any:
    """Return the values in a text: JSON where the file's suffix says so, else YAML.

    Raises
    ------
    ValueError
        It is neither, has a key twice, a number that is not decimal, a day that does not exist, or is nested too
        deeply.

    Examples
    --------
    >>> parse("redact: [income]", suffix=".yaml")
    {'redact': ['income']}
    """
    try:
        if suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=unique_keys)
        return yaml.load(text, Loader=UniqueKeys)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        msg = "it is nested too deeply"
        raise ValueError(msg) from error


class UniqueKeys(yaml.SafeLoader):
    """YAML without duplicate keys: the second of two bounds would silently win; and numbers are decimal."""

    merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put merged keys in the place of ``<<``; each level may multiply the one before, so they are counted."""
        lists = (v for k, v in node.value if k.tag == _MERGE and isinstance(v, yaml.SequenceNode))
        if any(len(listed.value) > MAX_MERGED for listed in lists):
            problem = f"one << merges more than {MAX_MERGED} mappings"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        super().flatten_mapping(node)
        self.merged += len(node.value)
        if self.merged > MAX_VALUES:
            problem = f"it has more than {MAX_VALUES} values with << followed"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Read a whole number in decimal; YAML would take 010 for 8 and 1:30 for 90."""
        if _DECIMAL.fullmatch(node.value) is None:
            problem = f"whole numbers are written in decimal, got {node.value[:40]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return int(super().construct_yaml_int(node))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """Read a number; YAML would take 1:30.0 for 90."""
        if ":" in node.value:
            problem = f"numbers are written in decimal, got {node.value[:40]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return float(super().construct_yaml_float(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; refuse a key that is there twice. Keys merged with ``<<`` may be given again."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen |= {name} if name is not None else set()
        return super().construct_mapping(node, deep)


UniqueKeys.add_constructor("tag:yaml.org,2002:int", UniqueKeys.construct_yaml_int)
UniqueKeys.add_constructor("tag:yaml.org,2002:float", UniqueKeys.construct_yaml_float)
