"""Names and patterns: how aliases, people, features and segments of a policy are found."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate

_NOTHING = "(?!)"
"""What `fnmatch.translate` writes for an empty range such as ``[z-a]``."""
_UNSEEN = ("Mn", "Me", "Cf", "Cc")
_FILLERS = "\u115f\u1160"
"""Letters that are drawn as nothing (U+3164 and U+FFA0 decompose to the second)."""
_ALIKE = str.maketrans(
    "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u0405\u0422\u0425\u0423"
    "\u0430\u0501\u0435\u04bb\u0456\u0458\u04cf\u043e\u0440\u0441\u0455\u0443\u0445\u051b\u051d\u0475"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
    "\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03c5\u03c7\u03b3\u03f2\u03f9\u03fa\u03f3\u0251\u0261"
    "\u0570\u0578\u057d\u0581\u0585\u0566\u2c9f\u2ca3\u2ca5"
    "\u13aa\u13f4\u13df\u13a0\u13ac\u13f3\u13bb\u13a5\u13ab\u13e6\u13de\u13b7\u13e2\u13a1\u13da\u13a2\u13d9\u13b3\u13d4\u13c3"
    "\ua4ee\ua4d0\ua4da\ua4d3\ua4f0\ua4dd\ua4d6\ua4e7\ua4f2\ua4d9\ua4d7\ua4e1\ua4df\ua4e0\ua4f3\ua4d1\ua4e3\ua4e2\ua4d4"
    "\ua4f4\ua4e6\ua4ea\ua4eb\ua4ec\ua4dc",
    "ABCEHIJKMOPSTXYadehijlopcsyxqwvABEZHIKMNOPTYXaikvopuxycCMjag"
    "hnugoqopc"
    "ABCDEGHIJKLMPRSTVWWZ"
    "ABCDEFGHIJKLMNOPRSTUVWXYZ",
)
"""Letters that are drawn as a Latin one: no database takes them for it, but people do.

Cyrillic, Greek and odd Latin ones, then Armenian and Coptic, Cherokee, and Lisu.
"""
_LATIN = re.compile(
    r"LATIN (?:(?:SMALL|CAPITAL) (?:LETTER|LIGATURE) (?:DOTLESS )?|LETTER SMALL CAPITAL )(?P<letter>[A-Z]{1,2})(?: WITH .+)?"
)


def folded(name: str) -> str:
    r"""Return a name as the loosest database collation, or a reader, compares it.

    No case, accents, width or unseen signs: ``Champion``, ``CHAMPION`` and ``chámpion`` name one alias on some servers,
    so they are protected alike. Letters of other scripts that look like Latin ones count as these.

    Examples
    --------
    >>> folded("Chámpion") == folded("CHAMPION") == folded("champi\u00f8n") == folded("\u0441hampi\u03bfn")
    True
    """
    if name.isascii() and name.isprintable():
        return name.strip().casefold()
    # before too: the form decomposes the lunate sigma, drawn as c, to another sigma
    plain = unicodedata.normalize("NFKD", name.strip().translate(_ALIKE)).translate(_ALIKE)
    seen = (_base(c) for c in plain if c not in _FILLERS and unicodedata.category(c) not in _UNSEEN)
    # after too: of some letters only one case stands in the list
    return "".join(seen).casefold().translate(_ALIKE).casefold()


def _base(sign: str) -> str:
    """Return the letters that a collation takes a Latin letter for which has no decomposition (``ø``, ``æ``)."""
    known = None if sign.isascii() else _LATIN.fullmatch(unicodedata.name(sign, ""))
    return sign if known is None else known["letter"]


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a name matches one of the shell patterns (``prod.*``), both folded."""
    return any(fnmatchcase(folded(name), folded(pattern)) for pattern in patterns)


def person(name: str) -> str:
    """Return a name of a person for comparison: without case, and with every other sign of it.

    Who is on a list is asked strictly: where `folded` would protect too much, it would here let in ``ánn`` for ``ann``.

    Examples
    --------
    >>> person(" Ann") == person("ann"), person("ánn") == person("ann")
    (True, False)
    """
    return unicodedata.normalize("NFC", name.strip()).casefold()


def listed(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a person is on a list of names and patterns (``risk-*``)."""
    return any(fnmatchcase(person(name), person(pattern)) for pattern in patterns)


def is_pattern(name: str) -> bool:
    """Tell whether a name has a sign of shell patterns."""
    return any(sign in name for sign in "*?[")


def hopeless(pattern: str) -> bool:
    """Tell whether a name or pattern can match nothing: blank, or with an empty range.

    Examples
    --------
    >>> hopeless("  "), hopeless("a[z-a]"), hopeless("a*")
    (True, True, False)
    """
    return not pattern.strip() or _NOTHING in translate(pattern)


def named(name: object) -> str:
    """Return a name for a message: in backquotes, at most 80 characters, nothing a terminal would obey."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(name))
    return f"`{text if len(text) <= 80 else text[:77] + '…'}`"


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the words for an unknown name: the nearest known one, or what is known.

    Examples
    --------
    >>> nearest("dept", ["debt", "age"]), nearest("zip", ["debt", "age"]), nearest("zip", [])
    ('the nearest is `debt`', 'known: `debt`, `age`', 'none is known')
    """
    lower = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(name.casefold(), list(lower), n=1)
    if close:
        return f"the nearest is {named(lower[close[0]])}"
    if not known:
        return "none is known"
    shown = ", ".join(named(k) for k in known[:5])
    return f"known: {shown}" + (f" and {len(known) - 5} more" if len(known) > 5 else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What the names of a policy select: ``found``, names that are ``unknown``, patterns that are ``unmatched``."""

    found: tuple[str, ...]
    unknown: tuple[str, ...]
    unmatched: tuple[str, ...]


def select(wanted: Sequence[str], known: Sequence[str]) -> Selection:
    """Find names: a name that is there as it is written, else the pattern's matches (case counts).

    Examples
    --------
    >>> select(["a[1]", "b*", "c"], ["a[1]", "b1", "b2"])
    Selection(found=('a[1]', 'b1', 'b2'), unknown=('c',), unmatched=())
    """
    hits: dict[str, None] = {}
    unknown, unmatched = [], []
    for name in wanted:
        if name in known:
            hits[name] = None
        elif not is_pattern(name):
            unknown.append(name)
        elif matched := [k for k in known if fnmatchcase(k, name)]:
            hits.update(dict.fromkeys(matched))
        else:
            unmatched.append(name)
    return Selection(found=tuple(hits), unknown=tuple(unknown), unmatched=tuple(unmatched))
