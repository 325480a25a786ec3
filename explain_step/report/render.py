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
JOINTS = re.compile(r"(?<=[_/(])(?=\w)|(?<=[.:])(?=[^\W\d])")
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
ADDRESS = re.compile(r"\bhttps?(?=:)|\bftp(?=:)|\bwww(?=\.)|@", re.IGNORECASE)
WORD_JOINER = "\u2060"
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
    made.filters.update(prose=html_prose, cell=html_cell, spoken=plain_line, breakable=breakable)
    return made


@lru_cache(maxsize=1)
def _markdown_templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: RUF100, S701 - every printed value goes through markdown_text, which escapes HTML
        undefined=StrictUndefined,
        finalize=markdown_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        prose=markdown_prose,
        line=markdown_line,
        cell=markdown_cell,
        first_line=markdown_first,
        written=Written,
    )
    made.filters["whole"] = lambda text: markdown_prose((Name(text),), width=len(text))
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
    return form.format(title, breakable(short) if len(short) > UNBROKEN else short)


def breakable(text: str) -> Markup:
    """Return a long name as HTML whose lines may end after signs like ``_`` and ``(``.

    Examples
    --------
    >>> print(breakable("a_b"), breakable("below 40.2"))
    a_<wbr>b below 40.2
    """
    return Markup("<wbr>").join(JOINTS.split(text))


def plain_line(text: Text) -> str:
    """Return a sentence without any marks, for attributes."""
    return clean(plain(text))


class Written(str):
    """Markdown that is escaped already."""

    __slots__ = ()


def markdown_text(value: Any) -> str:
    r"""Return a value as Markdown text on one line: nothing in it is read as Markdown, HTML or an address.

    Examples
    --------
    >>> print(markdown_text("a|b <i>"))
    a\|b &lt;i&gt;
    """
    if isinstance(value, Written):
        return value
    escaped = MARKDOWN.sub(r"\\\1", clean(value))
    escaped = escaped.replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")
    return ADDRESS.sub(lambda m: f"{m[0]}{WORD_JOINER}", escaped)


def markdown_first(value: Any) -> Written:
    r"""Return text for the start of a line: it begins no list, heading or rule.

    Examples
    --------
    >>> print(markdown_first("1. one"), markdown_first("- two"))
    1\. one \- two
    """
    text = markdown_text(value)
    return Written(AT_LINE_START.sub(lambda m: f"{m[1]}{m[2]}\\{m[3]}" if m[2] else f"{m[4]}\\{m[5]}", text))


def markdown_prose(text: Text, *, width: int = IN_PROSE) -> Written:
    """Return a sentence as Markdown: names as code, whatever characters they have."""
    parts = (markdown_text(p) if isinstance(p, str) else markdown_code(p, width=width) for p in text)
    return Written("".join(parts))


def markdown_line(text: Text) -> Written:
    """Return a sentence that stands at the start of a line."""
    return markdown_first(markdown_prose(text))


def markdown_cell(text: Text) -> Written:
    """Return a table cell as Markdown: plain text without code marks."""
    parts = (p if isinstance(p, str) else shorten(clean(p.text), IN_PROSE) for p in text)
    return Written(markdown_text("".join(parts)))


def markdown_code(name: Name, *, width: int = IN_PROSE) -> str:
    r"""Return a name as inline code that survives backticks, pipes and HTML.

    A pipe would end a table cell even inside code, so a name with one is written as escaped text.

    Examples
    --------
    >>> print(markdown_code(Name("a`b")))
    ``a`b``
    """
    text = shorten(clean(name.text), width)
    if "|" in text or not text.strip():
        return markdown_text(text) or "(empty)"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{pad}{text}{pad}{fence}"
