"""Facts that stay outside the snapshot id: who made it, where and why; further digests of the rows."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from explain_step.digests import frame_digest, sha256_bytes
from explain_step.secret_masking import mask_text
from explain_step.snapshot.provenance_machine import unknown

ROWSET_ALGORITHM = "rowset-v1"
CELLS = 300_000
"""Rows times columns up to which rows and columns get digests of their own: a tenth of a second."""
CI_VARIABLES = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID", "CI_JOB_URL", "BUILD_URL")
CI_REQUIRED = ("GITHUB_RUN_ID", "CI_JOB_URL", "BUILD_URL")


def origin(*, purpose: str | None, private: bool) -> dict[str, Any]:
    """Return who made a snapshot, where and why.

    Parameters
    ----------
    purpose : str, optional
        As the caller states it.
    private : bool
        Leave the names of user and host out.
    """
    hidden = unknown("privacy is strict")
    return {
        "who": hidden if private else _who(),
        "where": {"host": hidden if private else platform.node() or unknown("no name"), "ci": _ci()},
        "why": purpose or unknown("not stated; give purpose="),
    }


def _who() -> Any:
    named = os.environ.get("MLFLOW_TRACKING_USERNAME", "").strip()
    if named:
        return mask_text(named)
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name for the user's number
        return unknown("the system has no name for the user")


def _ci() -> Any:
    if not any(os.environ.get(name) for name in CI_REQUIRED):
        return unknown("no CI job was seen")
    return {name: mask_text(os.environ[name]) for name in CI_VARIABLES if os.environ.get(name)}


def row_digests(frame: pd.DataFrame, *, hidden: Collection[str] | None) -> dict[str, Any]:
    """Return the order-free digest of the rows and one digest per column, within a budget of cells.

    Parameters
    ----------
    frame : DataFrame of n rows
    hidden : collection of str, optional
        Columns that get no digest of their own: a column of few values can be guessed from its digest. None hides all.
    """
    if frame.size > CELLS:
        skipped = unknown(f"more than {CELLS:,} cells")
        return {"rowset_digest": skipped, "column_digests": skipped}
    columns: Mapping[str, Any] = unknown("privacy is strict")
    if hidden is not None:
        columns = {str(c): frame_digest(frame[[c]]) for c in frame.columns if c not in hidden}
    return {"rowset_digest": rowset_digest(frame), "column_digests": columns}


def rowset_digest(frame: pd.DataFrame) -> str:
    """Return a digest of the rows of a frame that does not depend on their order; how often a row occurs counts.

    The SHA-256 over the sorted SHA-256 of each row (``rowset-v1``); a row is 128 bits per cell, a cell
    is a number, nothing, or the digest of its type and text. The storage of numbers does not count.

    Examples
    --------
    >>> a = pd.DataFrame({"x": [1, 2], "y": ["u", None]})
    >>> rowset_digest(a) == rowset_digest(a.iloc[::-1]), rowset_digest(a) == rowset_digest(a.iloc[[0, 0]])
    (True, False)
    """
    cells = np.concatenate(
        [
            np.zeros((len(frame), 0), dtype=np.uint8),
            *(_cells(frame.iloc[:, k]) for k in range(frame.shape[1])),
        ],
        axis=1,
    )
    rows = sorted(hashlib.sha256(row.tobytes()).digest() for row in cells)
    header = "\0".join([ROWSET_ALGORITHM, *map(str, frame.columns)]).encode("utf-8", "backslashreplace")
    return sha256_bytes(header + b"\0\0" + b"".join(rows))


def _cells(column: pd.Series[Any]) -> Any:
    """Return 16 bytes per cell: a number is itself, anything else the digest of its text, once per distinct value."""
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iuf" and dtype.itemsize <= 8:
        values = column.to_numpy()
        numbers = values.astype("<f8") + 0.0  # -0.0 is 0.0
        if dtype.kind == "f" or bool((numbers == values).all()):
            cells = np.zeros((len(values), 16), dtype=np.uint8)
            numbers[np.isnan(numbers)] = np.nan
            cells[:, 0] = np.where(np.isnan(numbers), 0, 1)
            cells[:, 8:] = numbers[:, None].view(np.uint8)
            return cells
    codes, levels = pd.factorize(column, use_na_sentinel=True)
    digests = [_cell(value) for value in levels] + [_cell(None)]
    table = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16)
    return table[codes]  # a missing value has code -1: the last line


def _cell(value: Any) -> bytes:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and float(value) == value
    ):
        number = np.nan if value is None else float(value) + 0.0
        return bytes([0 if value is None else 1, *bytes(7)]) + np.array(number, dtype="<f8").tobytes()
    kind, text = type(value).__name__, str(value)
    data = f"{kind}:{text}".encode("utf-8", "backslashreplace")
    return hashlib.blake2b(data, digest_size=16).digest()
