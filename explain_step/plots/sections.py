"""The sections with figures, and how one of them is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from explain_step.plots.style import clean_rc
from explain_step.types import Artifact, Figure

RENDERERS: tuple[str, ...] = ("importance", "dependence", "segments", "examples")
"""Sections with figures, in the order of the page; ``explain_step.plots.<name>.draw`` draws each."""


def draw(name: str, artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str]) -> tuple[Figure, ...]:
    """Draw the figures of one section that its tables allow."""
    with clean_rc():
        return tuple(import_module(f"explain_step.plots.{name}").draw(artifacts, labels=labels))
