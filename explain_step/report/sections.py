"""What a section of the page consists of."""

from __future__ import annotations

from dataclasses import dataclass

from explain_step.report.context import PageContext
from explain_step.report.format import Text, plain
from explain_step.report.sentences import sentence
from explain_step.report.tables import Table
from explain_step.types import Artifact

METHOD_KEYS = ("rows_of", "method", "rule", "interval", "p_adjusted")
"""What an artifact's meta may say about its making, in the order to print it."""
LONG_TEXT = 420


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """What is behind one line that opens: tables, sentences or both."""

    summary: str
    tables: tuple[Table, ...] = ()
    lines: tuple[Text, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One line of a list of facts; ``full`` is the whole value where ``value`` is shortened."""

    label: str
    value: Text
    full: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One section. ``absent`` says why there is nothing else in it."""

    id: str
    title: str
    finding: tuple[Text, ...] = ()
    details: tuple[Details, ...] = ()
    made: tuple[Text, ...] = ()
    facts: tuple[Fact, ...] = ()
    absent: str = ""

    @property
    def folded(self) -> bool:
        """Whether the text on how the section was made is so long that it stands behind a line that opens."""
        return sum(len(plain(text)) for text in self.made) > LONG_TEXT


def present(context: PageContext, name: str) -> Artifact | None:
    """Return an artifact that has rows, or None."""
    artifact = context.artifacts.get(name)
    return None if artifact is None or artifact.table.empty else artifact


def absent(context: PageContext, name: str, *, id: str, title: str) -> Section:
    """Return a section that could not be made, with the reason in its place."""
    return Section(id=id, title=title, absent=sentence(context.missing.get(name) or "it was not computed"))


def made(*artifacts: Artifact | None) -> tuple[Text, ...]:
    """Return how tables were made: method and what their intervals cover, as their makers wrote it."""
    found: dict[str, None] = {}
    for artifact in artifacts:
        for key in METHOD_KEYS if artifact is not None else ():
            text = artifact.meta.get(key) if artifact is not None else None
            if isinstance(text, str) and text:
                found[_about(key, text)] = None
    return tuple((text,) for text in found)


def _about(key: str, text: str) -> str:
    if key == "p_adjusted":
        return f"Adjusted p: {sentence(text)}"
    nothing = key == "interval" and text.startswith("none")
    return sentence(f"no interval{text.removeprefix('none')}" if nothing else text)
