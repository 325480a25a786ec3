"""What every command shares: exit codes, the common options, where the log goes, JSON output."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TypeVar

import click

YES, NO, USAGE, UNDECIDED, FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130
Command = TypeVar("Command", bound=Callable[..., Any])


def common(command: Command) -> Command:
    """Add the options that every command has."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Show the log and the origin of errors."),
        click.option(
            "--tracking-uri", metavar="URI", help="MLflow tracking server. Default: MLflow's own setting."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text."),
    ):
        command = option(command)
    return command


@contextmanager
def working(*, verbose: bool) -> Iterator[None]:
    """Keep standard output for the result; show the log on standard error, on a terminal or when asked."""
    logger = logging.getLogger("explain_step")
    before = logger.level
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO if verbose or sys.stderr.isatty() else logging.WARNING)
    logger.addHandler(handler)
    logger.setLevel(min(before or logging.INFO, logging.INFO))
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def print_json(value: Any) -> None:
    """Print a value as strict, sorted JSON; signs that steer a terminal are escaped."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def harmless(text: str) -> str:
    r"""Return text without signs that steer a terminal; its lines stay.

    Examples
    --------
    >>> harmless("a\x1b[2J\nb")
    'a\ufffd[2J\nb'
    """
    return "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else "\ufffd" for c in text)
