"""Figures: views of tables. One module per section, each with ``draw(artifacts, *, labels)``."""

from __future__ import annotations

from collections.abc import Mapping

from explain_step.plots.drawing import Drawing
from explain_step.plots.sections import RENDERERS, draw
from explain_step.types import Artifact, Figure

__all__ = ["RENDERERS", "Drawing", "render"]


def render(
    artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str], drawing: Drawing | None = None
) -> tuple[Figure, ...]:
    """Draw every figure that the tables allow, in the order of the page.

    Parameters
    ----------
    artifacts : mapping of str to Artifact
        Tables by name; nothing else is read and nothing is computed anew.
    labels : mapping of str to str
        Reader names of raw features; a missing key means the name itself.
    drawing : Drawing, optional
        A process that has some of the tables already.
    """
    present = {artifact.kind for artifact in artifacts.values()}
    elsewhere = drawing.kinds(artifacts.values()) if drawing is not None else set()
    made = {
        name: draw(name, artifacts, labels=labels)
        for name in RENDERERS
        if name in present and name not in elsewhere
    }
    if drawing is not None:
        made |= {name: figures for name, figures in drawing.figures().items() if name in elsewhere}
    missing = [name for name in RENDERERS if name in present and name not in made]
    made |= {name: draw(name, artifacts, labels=labels) for name in missing}
    return tuple(figure for name in RENDERERS for figure in made.get(name, ()))
