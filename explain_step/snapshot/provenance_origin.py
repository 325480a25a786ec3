"""Facts that stay outside the snapshot id: who made it, where and why; further digests of the rows."""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from explain_step.digests import ROWSET_ALGORITHM, FrameDigests
from explain_step.secret_masking import mask_text
from explain_step.snapshot.provenance_machine import unknown

ROWSET_CELLS = 20_000_000
"""Rows times columns up to which there is an order-free digest: about two seconds and the memory of the frame again."""
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


def row_digests(
    found: FrameDigests, names: Sequence[Any], *, hidden: Collection[str] | None
) -> dict[str, Any]:
    """Return the record of the order-free digest of the rows and of the digest of each column.

    Parameters
    ----------
    found : FrameDigests
    names : sequence
        Labels of the columns.
    hidden : collection of str, optional
        Columns that get no digest of their own: a column of few values can be guessed from its digest. None hides all.
    """
    columns: Mapping[str, Any] = unknown("privacy is strict")
    if hidden is not None:
        columns = {
            str(name): digest for name, digest in zip(names, found.columns, strict=True) if name not in hidden
        }
    rowset = found.rowset or unknown(f"more than {ROWSET_CELLS:,} cells: sorting their rows takes seconds")
    return {"rowset_digest": rowset, "rowset_algorithm": ROWSET_ALGORITHM, "column_digests": columns}
