"""A page as its elements, attributes, words and tables, by the standard library's parser."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img"}


@dataclass
class Parsed(HTMLParser):
    """Tags, attributes and text of a page; every element must be closed in its place."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    stack: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    inside_word: bool = False
    tables: list[list[list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        if tag == "wbr":  # a place where a line may end inside a word
            self.inside_word = True
            return
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" in self.stack:
            return
        if self.inside_word:
            self.words[-1] += data
        else:
            self.words.append(data)
        self.inside_word = False
        if "td" in self.stack or "th" in self.stack:
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def table(self, *headings: str) -> list[dict[str, str]]:
        """Return the first table with these headings first, as rows by heading (the first of equal ones)."""
        for rows in self.tables:
            if tuple(rows[0][: len(headings)]) == headings:
                return [dict(reversed(list(zip(rows[0], row, strict=True)))) for row in rows[1:]]
        raise AssertionError(f"no table with headings {headings}")


def parsed(html: str) -> Parsed:
    found = Parsed()
    found.feed(html)
    found.close()
    assert found.stack == []
    return found
