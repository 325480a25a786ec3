"""How long names are broken into lines and shortened: at spaces and signs like ``_`` where there are any."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence


def broken(text: str, *, width: int, lines: int) -> list[str]:
    """Return ``text`` in at most ``lines`` lines of ``width`` characters; what does not fit is left out."""
    if len(text) <= width:
        return [text]
    pieces = _pieces(text)
    parts = _filled(pieces, width=width)
    if len(parts) > lines > 1:
        parts = _cut(pieces, width=width, lines=lines)
    if len(parts) <= lines and all(0 < len(p) <= width for p in parts):
        return parts
    short = shorten(text, room=width * lines)
    parts = textwrap.wrap(short, width=width, break_long_words=True, break_on_hyphens=False)
    return parts if len(parts) <= lines else _hard(short, width=width)


def _pieces(text: str) -> list[str]:
    """Return a name in pieces between which a line may end: after spaces and signs like ``_``."""
    marked = re.sub(r"([_\-./,:;|])(?=\w)", "\\1\u200b", text)
    return [piece.replace("\u200b", "") for piece in re.split(r"(?<=[ \u200b])", marked) if piece]


def _filled(pieces: Sequence[str], *, width: int) -> list[str]:
    """Return lines that take as many pieces as fit."""
    parts: list[str] = []
    for piece in pieces:
        if parts and len(parts[-1]) + len(piece.rstrip()) <= width:
            parts[-1] += piece
        else:
            parts.append(piece)
    return [p.strip() for p in parts if p.strip()]


def _cut(pieces: Sequence[str], *, width: int, lines: int) -> list[str]:
    """Return the first pieces, and on the last line an ellipsis and as many of the last pieces as fit."""
    head = _filled(pieces, width=width)[: lines - 1]
    tail = ""
    for piece in reversed(pieces):
        if len(piece) + len(tail.rstrip()) + 1 > width:
            break
        tail = piece + tail
    return [*head, "\u2026" + tail.strip()] if tail.strip() else []


def _hard(text: str, *, width: int) -> list[str]:
    return [text[i : i + width].strip() for i in range(0, len(text), width)]


def shorten(text: str, *, room: int) -> str:
    """Return at most ``room`` characters: the beginning and the end around an ellipsis."""
    if len(text) <= room:
        return text
    tail = max(room // 3, 1)
    return f"{text[: room - tail - 1].rstrip()}\u2026{text[-tail:].lstrip()}"
