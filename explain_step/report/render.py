"""The two templates and what they need: escaping for HTML and for Markdown."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from explain_step.report.format import Name, Text, clean, plain, shorten

if TYPE_CHECKING:
    from jinja2 import Environment

    from explain_step.report.view import View

TEMPLATES = Path(__file__).parent / "templates"
IN_PROSE, IN_TABLES = 48, 72
UNBROKEN = 22
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
AT_LINE_START = re.compile(r"^(\s*)(\d+)([.)])(?=\s|$)|^(\s*)([-+=])")


def html(view: View) -> str:
    """Return the page as one HTML document."""
    return _html_templates().get_template("page.html.j2").render(view=view)


def markdown(view: View) -> str:
    """Return the card as Markdown, without runs of empty lines."""
    text = _markdown_templates().get_template("card.md.j2").render(view=view)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip() + "\n"


@lru_cache(maxsize=1)
def _html_templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    made.filters.update(prose=html_prose, cell=html_cell, spoken=plain_line)
    return made


@lru_cache(maxsize=1)
def _markdown_templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,
        undefined=StrictUndefined,
        finalize=markdown_text,
    )
    made.filters.update(prose=markdown_prose, written=Written)
    return made


def html_prose(text: Text) -> Markup:
    """Return a sentence as HTML: names in code type, isolated in direction, shortened (title: the whole).

    Examples
    --------
    >>> print(html_prose(("Input ", Name("<b>"))))
    Input <code class="whole"><bdi>&lt;b&gt;</bdi></code>
    """
    return Markup("").join(_html_part(part, width=IN_PROSE, code=True) for part in text)


def html_cell(text: Text) -> Markup:
    """Return a table cell as HTML: names isolated in direction, in the type of the table."""
    return Markup("").join(_html_part(part, width=IN_TABLES, code=False) for part in text)


def _html_part(part: str | Name, *, width: int, code: bool) -> Markup:
    if isinstance(part, str):
        return escape(part)
    whole = clean(part.text)
    short = shorten(whole, width)
    title = Markup(' title="{}"').format(whole) if short != whole else Markup("")
    whole_line = Markup(' class="whole"') if len(short) <= UNBROKEN else Markup("")
    form = (
        Markup("<code{}><bdi{{}}>{{}}</bdi></code>").format(whole_line) if code else Markup("<bdi{}>{}</bdi>")
    )
    return form.format(title, short)


def plain_line(text: Text) -> str:
    """Return a sentence without any marks, for attributes."""
    return clean(plain(text))


class Written(str):
    """Markdown that is escaped already."""

    __slots__ = ()


def markdown_text(value: Any) -> str:
    r"""Return a value as Markdown text on one line: nothing in it is read as Markdown or HTML.

    Examples
    --------
    >>> print(markdown_text("a|b <i>"))
    a\|b &lt;i&gt;
    """
    if isinstance(value, Written):
        return value
    escaped = MARKDOWN.sub(r"\\\1", clean(value))
    return _unmark_line(escaped.replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;"))


def _unmark_line(text: str) -> str:
    return AT_LINE_START.sub(lambda m: f"{m[1]}{m[2]}\\{m[3]}" if m[2] else f"{m[4]}\\{m[5]}", text)


def markdown_prose(text: Text) -> Written:
    """Return a sentence as Markdown: names as code, whatever characters they have."""
    return Written("".join(markdown_text(p) if isinstance(p, str) else markdown_code(p) for p in text))


def markdown_code(name: Name) -> str:
    r"""Return a name as inline code that survives backticks, pipes and HTML.

    A pipe would end a table cell even inside code, so a name with one is written as escaped text.

    Examples
    --------
    >>> print(markdown_code(Name("a`b")))
    ``a`b``
    """
    text = shorten(clean(name.text), IN_PROSE)
    if "|" in text or not text.strip():
        return markdown_text(text) or "(empty)"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{pad}{text}{pad}{fence}"
