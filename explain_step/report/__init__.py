"""The page and the card: what most people ever see of an explanation.

``page`` gives one self-contained HTML document without scripts or external requests, ``card`` a section for
a model card in Markdown. Both print the same `View`, which is made from tables and facts only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

from explain_step.report import render
from explain_step.report.context import PageContext
from explain_step.report.view import shown, view, without_figures
from explain_step.types import Figure

__all__ = ["PageContext", "card", "page", "writers"]


def page(context: PageContext) -> str:
    """Return the page: one HTML document, everything escaped, figures inside.

    Parameters
    ----------
    context : PageContext

    Returns
    -------
    str
        The same context gives the same text.
    """
    return render.html(view(context))


def card(context: PageContext) -> str:
    """Return the card: a section of a model card in Markdown with the same facts as the page.

    Parameters
    ----------
    context : PageContext
    """
    return render.markdown(view(context))


class Contexts(Protocol):
    """Gives the context of a snapshot whose id is known last."""

    def __call__(self, *, snapshot_id: str) -> PageContext:
        """Return the context with this id in it."""
        ...


def writers(
    context: Contexts, *, figures: Callable[[], tuple[Figure, ...]]
) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Return `page` and `card` as functions of the snapshot id; both print one view, which is made once.

    The figures are asked for last: who draws them gets the time that the rest takes.
    """
    seen = cache(lambda identity: shown(without_figures(context(snapshot_id=identity)), figures()))
    return (lambda identity: render.html(seen(identity))), (lambda identity: render.markdown(seen(identity)))
