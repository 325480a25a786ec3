"""Builders: pure functions from a subject and its attributions to tidy tables."""

from __future__ import annotations

from explain_step.artifacts import dependence, examples, importance, interactions, performance, segments
from explain_step.artifacts.builder import Builder

__all__ = ["BUILDERS", "Builder"]

BUILDERS: tuple[Builder, ...] = (
    Builder(name="performance", required=False, build=performance.build),
    Builder(name="importance", required=True, build=importance.build),
    Builder(name="segments", required=True, build=segments.build),
    Builder(name="examples", required=True, build=examples.build),
    Builder(name="dependence", required=True, build=dependence.build),
    Builder(name="interactions", required=False, build=interactions.build),
)
"""The sections, in their order: sections that are quick to compute and slow to draw come before slow ones.

A caller may pass a tuple of its own to ``compute``."""
