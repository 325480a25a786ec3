"""Figures: views of tables. One module per section, each with ``jobs(artifacts, *, labels)``: a call per figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from explain_step.plots.sections import RENDERERS, jobs
from explain_step.plots.style import clean_rc, drawn
from explain_step.types import Artifact, Figure

__all__ = ["RENDERERS", "Drawing", "render"]


class Drawing(Protocol):
    """Who draws some of the figures elsewhere."""

    def kinds(self, artifacts: Iterable[Artifact]) -> tuple[str, ...]:
        """Return the kinds drawn there, in this order, whose tables are these."""

    def figures(self) -> Mapping[tuple[str, int], Figure]:
        """Return the figures that have come, by kind and place in `jobs`, without waiting."""


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
        A process that draws some of the figures already: it goes on from the first to the last, and here they are drawn
        from the last to the first, until all are there.
    """
    elsewhere = () if drawing is None else drawing.kinds(artifacts.values())
    planned = {
        (name, place): job
        for name in RENDERERS
        for place, job in enumerate(jobs(name, artifacts, labels=labels))
    }
    made: dict[tuple[str, int], Figure] = {}
    alone = [key for key in planned if key[0] not in elsewhere]
    shared = [key for name in reversed(elsewhere) for key in reversed(planned) if key[0] == name]
    with clean_rc():
        for key in (*alone, *shared):
            there = drawing.figures().get(key) if drawing is not None and key[0] in elsewhere else None
            made[key] = there or drawn(planned[key])
    return tuple(made[key] for key in planned)
