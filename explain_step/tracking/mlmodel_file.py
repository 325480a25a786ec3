"""Reading an ``MLmodel`` file that somebody else wrote: bounded, and without what makes a few lines stand for billions."""

from __future__ import annotations

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
        """Refuse a merge key; MLflow writes none."""
        for key, _ in node.value:
            if key.tag == _MERGE:
                raise yaml.constructor.ConstructorError(None, None, "it merges mappings (<<)", key.start_mark)


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
        Not YAML, with more than `MAX_VALUES` values, or with merge keys.
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
    return yaml.load(content, Loader=_PlainLoader)  # a SafeLoader
