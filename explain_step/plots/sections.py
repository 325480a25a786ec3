"""The sections with figures, and the figures that one of them has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from explain_step.plots.style import Job
from explain_step.types import Artifact

RENDERERS: tuple[str, ...] = ("importance", "dependence", "segments", "examples")
"""Sections with figures, in the order of the page; ``explain_step.plots.<name>.jobs`` plans each."""


def jobs(name: str, artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str]) -> tuple[Job, ...]:
    """Return the figures of one section that its tables allow, each still to be drawn (within `style.clean_rc`)."""
    found: tuple[Job, ...] = import_module(f"explain_step.plots.{name}").jobs(artifacts, labels=labels)
    return found
