"""Secrets never get into a snapshot: what is masked in command lines, URLs and error messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

MASK = "***"
_SECRET_WORD = re.compile(r"token|secret|passw|passphrase|pwd|credential|authori[sz]ation|bearer|key", re.I)
_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]{0,40}://)[^/\s?#]*@")
_QUERY = re.compile(r"(?P<name>[?&;][^=&\s]{0,200})=[^&\s#]*")
_SHAPES = re.compile(
    r"gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|hf_\w{16,}|sk-[\w-]{16,}|xox[abprs]-[\w-]{8,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}|(?<=hooks\.slack\.com/services/)[\w/]+|AIza[\w-]{20,}|dapi[0-9a-f]{20,}|eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"
)
_PAIR = re.compile(
    r"(?P<name>(?<!\w)\w{0,40}?(?:passw(?:or)?d|passphrase|pwd|secret|token|credentials?|(?:api|access|account|private)[_-]?key)"
    r"\w{0,40}['\"]?\s*[=:]\s*)"
    # quoted, also where the end is cut off; up to the semicolon of a connection string; a word
    r"(?:'(?:\\.|[^'\\])*'?|\"(?:\\.|[^\"\\])*\"?|(?<==)[^;'\"\n]+(?=;)|[^\s;,&'\"]+)",
    re.I,
)
_HEADER = re.compile(
    r"(?P<name>\b(?:authorization|(?:set-)?cookie)\s*[:=]\s*(?:\w+ (?=\S))?)[^'\"\r\n]+", re.I
)
_STATEMENT = re.compile(r"\[SQL:|\[parameters:|\bDETAIL:|\bCONTEXT:|\(Background on this error")
"""What SQLAlchemy and PostgreSQL put behind the words of an error: the statement, and the values of the row."""
_SEGMENT = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_SECRET_SEGMENTS = frozenset(
    {
        *("pass", "pw", "pat", "auth", "oauth", "jwt", "otp", "sas", "dsn"),
        *("cookie", "cookies", "cred", "creds"),
    }
)
"""Parts of names that speak of a secret only where they stand alone: not ``passes``, ``author``, ``path``."""
_USERS = frozenset({"-u", "-U", "--user", "--username", "--userpwd", "--login", "--proxy-user"})
"""Options whose value may be ``user:password``."""
_PASSWORD = re.compile(r"-p(?=.)(?!\d+(?::\d+)?$).*", re.S)
"""``-ppassword`` of database clients; ``-p8080`` is a port."""
_OPENS = re.compile(r"(?P<indent>\s*)(?:- )?['\"]?[\w.-]*:\s*(?:[|>][0-9+-]*)?\s*(?:#.*)?$")
"""A key of YAML whose value stands on the lines below it."""
_QUOTED = re.compile(r"(?P<quote>['\"])(?:\\.|(?!(?P=quote)).)*(?P=quote)")
_ASSIGNED = re.compile(
    r"(?P<name>(?:token|secret|passw|passphrase|pwd|credential|authori[sz]ation|bearer|key)[^=:\s]{0,80}\s*[=:]\s*)\S.*",
    re.I,
)
_BARE = re.compile(
    r"(?P<name>(?:token|secret|passw|passphrase|pwd|credential|key)\w{0,80}\s*=\s*)(?=\S*\d)[A-Za-z0-9+/_-]{8,}$",
    re.I,
)
_SPACED = re.compile(
    r"(?P<name>\b\w{0,40}?(?:token|secret|passw|passphrase|pwd|credential|key)\w{0,40}\s+)(?=\S*\d)[^\s=:]{8,}",
    re.I,
)
"""``ENV API_TOKEN x``, ``login me password x``: a value without a sign before it."""
_LOGIN = re.compile(
    r"(?P<name>(?<!\S)(?:-u|-U|--user|--userpwd|--proxy-user)[ =]['\"]?[^\s:]+:|"
    r"\b(?:login|mysql\w*|mariadb\w*|sshpass|mongo\w*)\s.{0,200}?(?<!\S)-p ?)[^\s'\"]+"
)
"""``curl -u me:x``, ``docker login -p x``, ``mysql -px`` in scripts."""
_NAMES = re.compile(r"\s*(?:- )?['\"]?(?:name|key)['\"]?\s*:", re.I)
_VALUE = re.compile(r"(?P<name>\s*(?:- )?['\"]?value['\"]?\s*:\s*)\S.*", re.I)
"""``name: DB_PASSWORD`` and, below it, ``value: x``."""
_OPENED = ("(", "[", "{", "=", "\\")
_HANDS_OVER = re.compile(r"\blogin\b|\bidentified by\b", re.I)
_RUN = re.compile(r"(?P<quote>['\"])(?=[^'\"]*\d)(?=[^'\"]*[A-Za-z])[A-Za-z0-9+/=_.~-]{24,}(?P=quote)")


def mask(words: Iterable[str]) -> list[str]:
    """Return a command line without its secrets.

    Masked are the values of options and assignments whose name speaks of a token, secret, password, key or
    credential (``--api-key x``, ``--token=x``, ``DB_PASSWORD=x``, ``--auth x``), what follows ``-p`` unless it is a
    number (a port), the password of ``-u user:password``, user names and passwords in URLs, all query values of
    URLs, and words that look like tokens of well-known services. A secret that is a bare word among the arguments,
    or follows another short option, cannot be told from a name: pass secrets through the environment.

    Examples
    --------
    >>> mask(["train.py", "--api-key", "abc", "--rows=5", "https://me:pw@host/x?sig=1"])
    ['train.py', '--api-key', '***', '--rows=5', 'https://***@host/x?sig=***']
    >>> mask(["-p", "abc", "-p", "8080", "-u", "me:abc"])
    ['-p', '***', '-p', '8080', '-u', 'me:***']
    """
    masked: list[str] = []
    before = ""  # the option whose value comes next
    for word in words:
        text = str(word)
        name, equals, value = text.partition("=")
        is_option = text.startswith("-")
        if _is_secret(before) and not (is_option and _is_secret(text)):
            masked.append(MASK)
            before = ""
            continue
        if before == "-p" and not is_option:
            masked.append(text if text.replace(":", "").isdigit() else MASK)
        elif before in _USERS and not is_option:
            masked.append(_without_password(text))
        elif equals and "://" not in name and _is_secret(name):
            masked.append(f"{name}={MASK}")
        elif equals and name in _USERS:
            masked.append(f"{name}={_without_password(value)}")
        elif _PASSWORD.fullmatch(text):
            masked.append(f"-p{MASK}")
        else:
            masked.append(mask_text(text))
        before = text if is_option and not equals else ""
    return masked


def _is_secret(name: str) -> bool:
    """Tell whether the name of an option or variable speaks of a secret."""
    parts = {part.lower() for part in _SEGMENT.findall(name)}
    return _SECRET_WORD.search(name) is not None or bool(parts & _SECRET_SEGMENTS)


def _without_password(text: str) -> str:
    user, colon, _ = text.partition(":")
    return f"{user}:{MASK}" if colon and "://" not in text else mask_text(text)


def mask_text(text: str) -> str:
    """Return a text without what may be secrets.

    These are URL user names and query values, words shaped like tokens, and what stands after ``password=``, ``token:`` and
    the like, as in the messages of database drivers, and headers of HTTP that carry credentials.

    Examples
    --------
    >>> mask_text("no answer: host=db user=me password=abc; see https://me:pw@host/")
    'no answer: host=db user=me password=***; see https://***@host/'
    """
    return _PAIR.sub(rf"\g<name>{MASK}", _HEADER.sub(rf"\g<name>{MASK}", _mask_words(text)))


def _mask_words(text: str) -> str:
    text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    if "://" in text or text.startswith("?"):
        text = _QUERY.sub(rf"\g<name>={MASK}", text)
    text = re.sub(r"(?i)\b(bearer|basic)\s+\S+", rf"\1 {MASK}", text)
    return _SHAPES.sub(MASK, text)


def told(error: BaseException, *, most: int = 200) -> str:
    """Return an error for people who are not its machine's: its type and words, without secrets and rows of a database.

    Examples
    --------
    >>> told(ValueError("duplicate key [SQL: INSERT INTO t VALUES (%(v)s)] [parameters: {'v': 'a name'}]"))
    'ValueError: duplicate key'
    """
    words = " ".join(_STATEMENT.split(str(error), maxsplit=1)[0].split())
    return f"{type(error).__name__}: {mask_text(words)[:most]}"


def mask_lines(text: str) -> str:
    """Return source text or a diff of it without what may be secrets.

    Beside `mask_text`: quoted values on a line that speaks of a token, secret, password, key, credential or login, and
    below it where a bracket is left open; values after ``=``, ``:`` or a blank there, outside Python; passwords of command
    lines; private keys; quoted runs of 24 and more letters and digits. It masks too much rather than too little, so a
    patch may not apply.

    Examples
    --------
    >>> mask_lines('+API_KEY = "abc"') + mask_lines("+rows = sorted(rows, key=len)")
    '+API_KEY = "***"+rows = sorted(rows, key=len)'
    """
    lines, python, inside, below = [], True, False, -1
    for line in _mask_below(text.split("\n")):
        sign, rest, indent = _parts(line)
        if below >= 0 and rest.strip() and indent > below:  # the value of the key above
            lines.append(f"{sign}{rest[:indent]}{MASK}")
            continue
        if line.startswith("+++ "):
            python = line.rstrip().endswith((".py", ".pyi", ".pyx"))
        if rest.strip():
            opens = not python and _OPENS.match(rest) and _SECRET_WORD.search(rest)
            below = indent if opens else -1
        begins, ends = "-----BEGIN" in line, "-----END" in line
        if begins or inside:
            inside = not ends
            lines.append(f"{line[:1] if line[:1] in '+- ' else ''}{MASK}")
            continue
        lines.append(_mask_line(line, python=python))
    return "\n".join(lines)


def _parts(line: str) -> tuple[str, str, int]:
    """Return the sign of a line of a diff, the rest of it, and how far that is indented."""
    sign, rest = (line[:1], line[1:]) if line[:1] in ("+", "-", " ") else ("", line)
    return sign, rest, len(rest) - len(rest.lstrip())


def _mask_below(lines: Iterable[str]) -> Iterator[str]:
    """Mask what stands below the line that speaks of it: in an open bracket, or a ``value:`` after its ``name:``."""
    opened, named = -1, False
    for line in lines:
        sign, rest, indent = _parts(line)
        if not rest.strip():
            yield line
            continue
        opened = -1 if indent <= opened else opened
        within = _QUOTED.sub(rf"\g<quote>{MASK}\g<quote>", rest) if opened >= 0 else rest
        yield sign + (_VALUE.sub(rf"\g<name>{MASK}", within) if named else within)
        speaks = _speaks(rest)
        named = speaks and _NAMES.match(rest) is not None
        if opened < 0 and speaks and rest.rstrip().endswith(_OPENED):
            opened = indent


def _speaks(line: str) -> bool:
    """Tell whether a line speaks of a secret, or hands one over: ``pw = …``, ``auth=("me", …)``, ``db.login("me", …)``."""
    return _is_secret(line) or _HANDS_OVER.search(line) is not None


def _mask_line(line: str, *, python: bool) -> str:
    line = _mask_words(line)
    if line.startswith(("+++ ", "--- ", "diff --git ")):
        return line
    if not python:
        line = _LOGIN.sub(rf"\g<name>{MASK}", line)
        line = _SPACED.sub(rf"\g<name>{MASK}", line)
    if _speaks(line):
        line = _QUOTED.sub(rf"\g<quote>{MASK}\g<quote>", line)
        line = (_BARE if python else _ASSIGNED).sub(rf"\g<name>{MASK}", line)
    return _RUN.sub(rf"\g<quote>{MASK}\g<quote>", line)


def masked(value: Any) -> Any:
    """Return a plain JSON value with `mask_text` on every text: an error may quote a URL with a password."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, list):
        return [masked(item) for item in value]
    if isinstance(value, dict):
        return {key: masked(item) for key, item in value.items()}
    return value
