"""Figures: views of tables. One module per section, each with ``draw(artifacts, *, labels)``."""

from __future__ import annotations

from collections.abc import Mapping

from explain_step.plots.drawing import Drawing
from explain_step.plots.sections import RENDERERS, draw
from explain_step.types import Artifact, Figure

__all__ = ["RENDERERS", "Drawing", "render"]


def render(
    artifacts: Mapping[str, Artifact],
    *,
    labels: Mapping[str, str],
    drawn: Mapping[str, tuple[Figure, ...]] | None = None,
) -> tuple[Figure, ...]:
    """Draw every figure that the tables allow, in the order of the page.

    Parameters
    ----------
    artifacts : mapping of str to Artifact
        Tables by name; nothing else is read and nothing is computed anew.
    labels : mapping of str to str
        Reader names of raw features; a missing key means the name itself.
    drawn : mapping of str to tuple of Figure, optional
        Sections that are drawn already; see `Drawing`.
    """
    present = {artifact.kind for artifact in artifacts.values()}
    ready = drawn or {}
    figures: list[Figure] = []
    for name in RENDERERS:
        if name in present:
            figures.extend(ready[name] if name in ready else draw(name, artifacts, labels=labels))
    return tuple(figures)
