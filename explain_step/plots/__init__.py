"""Figures: views of tables. One module per section, each with ``draw(artifacts, *, labels)``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

from explain_step.plots.style import clean_rc
from explain_step.types import Artifact, Figure

RENDERERS: tuple[str, ...] = ("importance", "dependence", "segments", "examples")
"""Sections with figures, in the order of the page; ``explain_step.plots.<name>.draw`` draws each."""


def render(artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str]) -> tuple[Figure, ...]:
    """Draw every figure that the tables allow, in the order of the page.

    Parameters
    ----------
    artifacts : mapping of str to Artifact
        Tables by name; nothing else is read and nothing is computed anew.
    labels : mapping of str to str
        Reader names of raw features; a missing key means the name itself.
    """
    present = {artifact.kind for artifact in artifacts.values()}
    figures: list[Figure] = []
    for name in RENDERERS:
        if name in present and find_spec(f"{__name__}.{name}") is not None:
            with clean_rc():
                figures.extend(import_module(f"{__name__}.{name}").draw(artifacts, labels=labels))
    return tuple(figures)
