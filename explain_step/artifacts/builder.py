"""The form of a section's builder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from explain_step.types import Section

Build = Callable[..., Section]


@dataclass(frozen=True, kw_only=True, slots=True)
class Builder:
    """One section of a snapshot.

    ``build(subject, attributions, *, config, seeds)`` returns a `Section` or raises `NotApplicable` with the reason.
    A ``required`` section that is missing makes the snapshot incomplete.
    """

    name: str
    required: bool
    build: Build
