"""A small, safe language for segments: ``"age >= 30 and purpose in ['car', 'boat']"``.

Python's own grammar is parsed and a whitelist of its nodes is interpreted over columns; nothing is ever
evaluated as code. Allowed: column names (in backquotes where they are no identifiers), text, numbers, True
and False, comparisons, ``in`` and ``not in`` a list of values, ``is None`` for missing, ``and``, ``or``,
``not`` and brackets. A comparison with a missing value is false, as in `pandas.DataFrame.query`.
"""

from __future__ import annotations

import ast
import difflib
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from explain_step.errors import InvalidInput

LONGEST = 2000
"""Characters; a longer expression is a mistake or an attack on the parser."""
DEEPEST = 60
SHOWN = 200
"""Characters of an expression that a message repeats."""
HELP = "write comparisons of columns with values, joined by and, or, not; quote unusual columns as `a b`"


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """A parsed rule over columns.

    Attributes
    ----------
    text : str
        As the caller wrote it.
    columns : tuple of str
        The columns it reads, in the order of their first use.
    tree : ast.expr
        Its checked syntax tree.
    names : mapping of str to str
        Identifier in the tree to column name.
    origin : tuple of int
        For each character of the parsed text, its position in ``text``.
    """

    text: str
    columns: tuple[str, ...]
    tree: ast.expr
    names: Mapping[str, str]
    origin: tuple[int, ...]
    parsed: str


def parse(text: str, columns: Sequence[str]) -> Expression:
    """Parse and check an expression over ``columns``; nothing is computed.

    Raises
    ------
    InvalidInput
        With the position, what is not allowed there, and the nearest column name for one that does not exist.

    Examples
    --------
    >>> parse("age < 30 and `home owner` == 'yes'", ["age", "home owner"]).columns
    ('age', 'home owner')
    """
    if len(text) > LONGEST:
        msg = f"Segment expression has {len(text)} characters; at most {LONGEST} are allowed: {text[:60]!r}…"
        raise InvalidInput(msg)
    parsed, origin, quoted = _unquote(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(parsed, mode="eval").body
    except SyntaxError as error:
        _refuse_syntax(text, columns, at=_at(origin, parsed, (error.lineno or 1), (error.offset or 1) - 1))
    except (ValueError, RecursionError, MemoryError):
        _refuse(text, 0, "it cannot be read")
    checker = _Checker(text=text, columns=columns, quoted=quoted, origin=origin, parsed=parsed)
    checker.condition(tree, depth=0)
    return Expression(
        text=text,
        columns=tuple(dict.fromkeys(checker.names.values())),
        tree=tree,
        names=checker.names,
        origin=origin,
        parsed=parsed,
    )


def unknown_column(name: str, columns: Sequence[str]) -> str:
    """Return "there is no column 'agee'; did you mean 'age'?"."""
    close = difflib.get_close_matches(name, list(columns), n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else "columns are: " + ", ".join(map(repr, columns[:8]))
    more = "" if close or len(columns) <= 8 else f" and {len(columns) - 8} more"
    return f"there is no column {name[:80]!r}; {hint}{more}"


def quote(column: str) -> str:
    """Return a column name as it is written in an expression.

    Examples
    --------
    >>> quote("age"), quote("home owner"), quote("class")
    ('age', '`home owner`', '`class`')
    """
    import keyword

    plain = column.isidentifier() and not keyword.iskeyword(column) and column.isascii()
    return column if plain else f"`{column}`"


def _refuse(text: str, at: int, problem: str, *, remedy: str = HELP) -> NoReturn:
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    end = "" if remedy.endswith("?") else "."
    msg = f"Segment expression {shown!r} cannot be used: at position {at + 1}, {problem}; {remedy}{end}"
    raise InvalidInput(msg)


def _refuse_syntax(text: str, columns: Sequence[str], *, at: int) -> NoReturn:
    close = difflib.get_close_matches(text, list(columns), n=1, cutoff=0.7)
    remedy = f"did you mean the column {close[0]!r}?" if close else HELP
    _refuse(text, at, "the syntax is not understood", remedy=remedy)


def _unquote(text: str) -> tuple[str, tuple[int, ...], dict[str, str]]:
    """Replace backquoted names by identifiers that occur nowhere else; keep each character's origin."""
    stem = "column_"
    while stem in text:
        stem = "_" + stem
    out: list[str] = []
    origin: list[int] = []
    quoted: dict[str, str] = {}
    position, string = 0, ""
    while position < len(text):
        char = text[position]
        if not string and char == "`":
            end = text.find("`", position + 1)
            if end < 0:
                _refuse(text, position, "a backquote is not closed", remedy="close it")
            name = text[position + 1 : end]
            token = next((t for t, n in quoted.items() if n == name), f"{stem}{len(quoted)}")
            quoted[token] = name
            out.append(token)
            origin.extend([position] * len(token))
            position = end + 1
            continue
        if string and char == "\\":
            out.append(text[position : position + 2])
            origin.extend(range(position, min(position + 2, len(text))))
            position += 2
            continue
        if char in "'\"" and string in ("", char):
            string = "" if string else char
        out.append(char)
        origin.append(position)
        position += 1
    body = "".join(out)
    spaces = len(body) - len(body.lstrip())
    return body[spaces:], (*origin[spaces:], len(text)), quoted


def _at(origin: Sequence[int], parsed: str, line: int, column: int) -> int:
    """Return the position in the caller's text of a character column of a line of the parsed text."""
    start = sum(len(part) for part in parsed.splitlines(keepends=True)[: line - 1])
    return origin[max(0, min(start + column, len(origin) - 1))]


class Walker:
    """What checking and evaluating share: where a node stands in the caller's text."""

    def __init__(self, *, text: str, origin: Sequence[int], parsed: str) -> None:
        self.text = text
        self.origin = origin
        self.parsed = parsed

    def refuse(self, node: ast.AST, problem: str, *, remedy: str = HELP) -> NoReturn:
        """Raise `InvalidInput` with the node's position in the caller's text."""
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        lines = self.parsed.splitlines(keepends=True) or [""]
        column = len(lines[line - 1].encode()[:offset].decode("utf-8", "ignore"))
        _refuse(self.text, _at(self.origin, self.parsed, line, column), problem, remedy=remedy)


class _Checker(Walker):
    """Walks the whitelist; anything else is refused with its position. Collects the columns."""

    def __init__(
        self,
        *,
        text: str,
        columns: Sequence[str],
        quoted: Mapping[str, str],
        origin: Sequence[int],
        parsed: str,
    ) -> None:
        super().__init__(text=text, origin=origin, parsed=parsed)
        self.columns = list(columns)
        self.quoted = quoted
        self.names: dict[str, str] = {}

    def condition(self, node: ast.expr, *, depth: int) -> None:
        if depth > DEEPEST:
            self.refuse(node, "it is nested too deeply")
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self.condition(value, depth=depth + 1)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.condition(operand, depth=depth + 1)
            case ast.Compare():
                self.comparison(node)
            case ast.Name():
                self.name(node)
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
                self.refuse(node, "&, | and ~ are not allowed", remedy="write and, or, not")
            case ast.Constant():
                self.refuse(node, f"{node.value!r} is not a condition")
            case _:
                self.refuse(node, f"{_called(node)} is not allowed")

    def comparison(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
            if isinstance(op, ast.In | ast.NotIn):
                self.membership(left, right)
            elif isinstance(op, ast.Is | ast.IsNot):
                self.name(left)
                if not (isinstance(right, ast.Constant) and right.value is None):
                    self.refuse(right, "'is' is only for None (missing)", remedy="compare values with ==")
            else:
                self.operand(left)
                self.operand(right)
                if not isinstance(left, ast.Name) and not isinstance(right, ast.Name):
                    self.refuse(left, "two values are compared and no column")

    def membership(self, left: ast.expr, right: ast.expr) -> None:
        self.name(left)
        if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not right.elts:
            self.refuse(
                right, "'in' needs a list of values", remedy="write for instance purpose in ['car', 'boat']"
            )
        for element in right.elts:
            self.literal(element)

    def operand(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name):
            self.name(node)
        else:
            self.literal(node)

    def literal(self, node: ast.expr) -> None:
        value = literal_value(node)
        if value is None and isinstance(node, ast.Constant) and node.value is None:
            self.refuse(
                node, "None is compared", remedy="write 'is None' or 'is not None' for missing values"
            )
        if value is None:
            self.refuse(node, f"{_called(node)} is not allowed")

    def name(self, node: ast.expr) -> None:
        if not isinstance(node, ast.Name):
            self.refuse(node, f"{_called(node)} stands where a column name should")
        wanted = self.quoted.get(node.id, node.id)
        if wanted not in self.columns:
            wanted = next((c for c in self.columns if unicodedata.normalize("NFKC", c) == wanted), wanted)
        if wanted not in self.columns:
            problem, _, remedy = unknown_column(wanted, self.columns).partition("; ")
            self.refuse(node, problem, remedy=remedy.rstrip("."))
        self.names[node.id] = wanted


def literal_value(node: ast.expr) -> str | int | float | bool | None:
    """Return the value of a text, number or truth literal (with a sign); None for anything else."""
    match node:
        case ast.Constant(value=str() | int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.UnaryOp(op=ast.UAdd(), operand=ast.Constant(value=int() | float() as value)):
            return value
    return None


def _called(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and type(node.value) in (bytes, complex):
        return (
            f"{node.value!r} ({type(node.value).__name__}: only text, numbers, True and False are compared)"
        )
    names = {
        ast.Call: "a function call",
        ast.Attribute: "an attribute",
        ast.Subscript: "an index",
        ast.Lambda: "a lambda",
        ast.BinOp: "arithmetic",
        ast.JoinedStr: "a formatted string",
        ast.NamedExpr: "an assignment",
        ast.IfExp: "a conditional",
        ast.Compare: "a comparison",
        ast.Name: "a column name",
        ast.Constant: "this value",
    }
    return names.get(type(node), f"{type(node).__name__}")
