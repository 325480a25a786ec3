"""The card: the same facts in Markdown, and no name of the data becomes markup there either."""

from __future__ import annotations

import re

import pytest
from page_fixture import CONTEXTS, hostile, normal

from explain_step.report import card
from explain_step.report.format import Name
from explain_step.report.render import markdown_code, markdown_first, markdown_text


@pytest.fixture(scope="module")
def cards() -> dict[str, str]:
    return {name: card(make()) for name, make in CONTEXTS.items()}


@pytest.mark.parametrize("name", CONTEXTS)
def test_it_is_short_and_has_every_section(cards, name):
    text = cards[name]
    assert len(text.splitlines()) <= 150
    assert text.startswith("# ")
    assert len(re.findall(r"^## ", text, re.MULTILINE)) >= 9
    assert "\n\n\n" not in text
    assert text.endswith("\n")


@pytest.mark.parametrize("name", CONTEXTS)
def test_tables_are_whole(cards, name):
    """Rows of one table follow each other without a gap and have as many cells as the head."""
    blocks = re.findall(r"(?:^\|.*\n)+", cards[name], re.MULTILINE)
    assert blocks
    for block in blocks:
        lines = block.splitlines()
        cells = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
        assert len(set(cells)) == 1
        assert re.fullmatch(r"\|(?: ---:? \|)+", lines[1])


def test_it_states_the_facts_of_the_page(cards):
    text = cards["normal"]
    assert "for 714 held-out rows, against 1,666 background rows given by the caller, exactly." in text
    assert "| ROC AUC | 0.837 | 0.796 to 0.875 | performance; higher is better |" in text
    assert "| loan to value | 1 to 2 | 0.0654 | 0.0576 to 0.0732 | 22.0% |" in text
    assert normal().reproducibility["snapshot_id"] in text
    assert "level L0" in text
    assert "**Causes.**" in text


@pytest.mark.parametrize("name", [n for n in CONTEXTS if n != "hostile"])
def test_nothing_is_nan(cards, name):
    assert not re.search(r"\b(nan|NaN|None|NaT)\b", cards[name])


def test_hostile_names_are_text(cards):
    outside_code = re.sub(r"`[^`\n]*`", "", cards["hostile"].replace("\\`", ""))
    assert "<script" not in outside_code
    assert "<img" not in outside_code
    assert not re.search(r"(?<!\\)\]\(", outside_code)
    assert "http:" not in outside_code, "an address would become a link"
    cards["hostile"].encode("utf-8")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", "a\\|b"),
        ("*x* _y_", "\\*x\\* \\_y\\_"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("[a](b)", "\\[a\\](b)"),
        ("a\nb", "a\u21b5b"),
        ("\\", "\\\\"),
    ],
)
def test_text_is_escaped(text, written):
    assert markdown_text(text) == written


@pytest.mark.parametrize("text", ["# a", "- a", "+ a", "1. a", "2) a", "> a", "=== a", "---"])
def test_no_line_begins_with_a_mark(text):
    assert not re.match(r"\s*(#|-|\+|=|>|\d+[.)](\s|$))", markdown_first(text))


@pytest.mark.parametrize("name", ["a", "a`b", "``", "`", " a ", "a``b`c", "<b>", "*"])
def test_code_holds_backticks(name):
    written = markdown_code(Name(name))
    fence = re.match(r"`+", written)[0]
    assert written.endswith(fence)
    inner = written[len(fence) : -len(fence)]
    assert fence not in re.findall(r"`+", inner)
    assert inner.strip() == name.strip()


def test_a_pipe_leaves_code():
    assert markdown_code(Name("a|b")) == "a\\|b"
    assert markdown_code(Name("")) == "(empty)"


def test_same_context_same_card(cards):
    assert card(hostile()) == cards["hostile"]
