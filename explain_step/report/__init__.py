"""The page and the card: what most people ever see of an explanation.

``page`` gives one self-contained HTML document without scripts or external requests, ``card`` a section for
a model card in Markdown. Both print the same `View`, which is made from tables and facts only.
"""

from __future__ import annotations

from explain_step.report import render
from explain_step.report.context import PageContext
from explain_step.report.view import view

__all__ = ["PageContext", "card", "page"]


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
