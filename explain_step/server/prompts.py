"""Prompts share the registry with models; what is a prompt is decided by the version itself, never by its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from explain_step.gate import folded

PROMPT_TAG = "mlflow.prompt.is_prompt"
SOURCES = frozenset({"dummy-source", "prompt-template"})
"""What MLflow's client and store put where a model has its source."""


def is_prompt_tag(key: str) -> bool:
    """Tell whether a key is the prompt tag, however a database compares keys."""
    return folded(key) == PROMPT_TAG


def is_prompt_version(version: Any) -> bool:
    """Tell whether a version is a prompt: its own tag says so, and it has nothing that could be loaded."""
    return is_prompt(version.source, tags=version.tags or {}, run_id=version.run_id)


def is_prompt(source: Any, *, tags: Mapping[str, str], run_id: Any = None) -> bool:
    """Tell the same before the version exists.

    Examples
    --------
    >>> is_prompt("prompt-template", tags={PROMPT_TAG: "true"})
    True
    >>> is_prompt("models:/m-0123", tags={PROMPT_TAG: "true"}), is_prompt("prompt-template", tags={})
    (False, False)
    """
    tagged = str(tags.get(PROMPT_TAG, "")).casefold() == "true"
    return tagged and str(source) in SOURCES and not run_id


def has_prompt_tag(tags: Any) -> bool:
    """Tell whether a registered model carries the tag, with whatever value."""
    keys = tags if isinstance(tags, Mapping) else [tag.key for tag in tags or ()]
    return any(is_prompt_tag(str(key)) for key in keys)
