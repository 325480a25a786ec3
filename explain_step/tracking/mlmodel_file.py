"""Reading an ``MLmodel`` file that somebody else wrote: bounded, and without what makes a few lines stand for billions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MLMODEL = "MLmodel"
MAX_MLMODEL_BYTES = 4 * 2**20
"""A model with tens of thousands of columns has less: its signature is one text."""
MAX_VALUES = 20_000
_MERGE = "tag:yaml.org,2002:merge"


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader for a bounded number of values, and without ``<<``, whose every level may multiply them."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Count what is read; a file of some megabytes could take minutes."""
        self.values = getattr(self, "values", 0) + 1
        if self.values > MAX_VALUES:
            raise yaml.composer.ComposerError(None, None, f"it has more than {MAX_VALUES} values", None)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse a merge key and a key that is there twice; MLflow writes neither."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                raise yaml.constructor.ConstructorError(None, None, "it merges mappings (<<)", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:  # readers differ in which of the two they take
                    problem = f"it has the key {key.value[:40]!r} twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)


def parse_mlmodel(content: bytes | str) -> Any:
    """Return what a YAML text of MLflow holds. An alias is the same object again, never a copy.

    Parameters
    ----------
    content : bytes or str
        An ``MLmodel`` file, or the text of a signature in it.

    Raises
    ------
    ValueError
        More than `MAX_MLMODEL_BYTES`, or no UTF-8.
    yaml.YAMLError
        Not YAML, with more than `MAX_VALUES` values, with merge keys, or with a key twice.
    RecursionError
        Nested too deeply.

    Examples
    --------
    >>> parse_mlmodel("flavors: {sklearn: {pickled_model: model.skops}}")["flavors"]["sklearn"]
    {'pickled_model': 'model.skops'}
    """
    if len(content) > MAX_MLMODEL_BYTES:
        msg = f"it has more than {MAX_MLMODEL_BYTES} bytes"
        raise ValueError(msg)
    if isinstance(content, bytes):
        content = content.decode("utf-8")  # YAML may be UTF-16 as well; MLflow writes and reads UTF-8
    return yaml.load(content, Loader=_PlainLoader)  # a SafeLoader


def read_bounded(file: Path) -> bytes:
    """Return the bytes of a file, of a larger one than `parse_mlmodel` takes only so many that it says so."""
    with file.open("rb") as handle:
        return handle.read(MAX_MLMODEL_BYTES + 1)
