"""How much a snapshot that verifies proves: four levels, and for each that is not reached, why.

====== =========================================================================================
level  what it shows
====== =========================================================================================
L0     the digests stand beside the files: accidents, not somebody who rewrites file and digest
L1     the registry notes the same digest of the manifest: somebody else's word, in another place
L2     a key that the caller lists signed the manifest, which names every file
L3     signed, and an authority that the caller lists says since when the manifest is the same
====== =========================================================================================

Only L1 and above show a change that somebody made on purpose, and each only as far as the place, the key or the authority is
out of the reach of whoever may write the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from explain_step.snapshot.timestamps import TimestampFound

WORDS = {
    "L0": "self-consistent only (L0): accidents show, a change of files and digests together does not",
    "L1": "the registry notes the same manifest (L1)",
    "L2": "signed by {owners} (L2)",
    "L3": "signed by {owners} and time-stamped (L3): {stamp}",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """What a registry says of a snapshot.

    Attributes
    ----------
    sha256 : str, optional
        Its note of the SHA-256 of ``manifest.json``; None where it has none.
    where : str
        The version, logged model or run that has the note.
    """

    sha256: str | None
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """The level that is reached, and what is lacking.

    Attributes
    ----------
    level : str
        The highest of ``L0`` to ``L3`` that is reached.
    words : str
        The same for people.
    lacking : mapping of str to str
        For each level that is not reached, why; lower ones than ``level`` among them.
    """

    level: str
    words: str
    lacking: Mapping[str, str]


def trust_of(
    *,
    noted: Noted | None,
    signatures: tuple[Mapping[str, Any], ...],
    listed: bool,
    timestamp: TimestampFound | None,
) -> Trust:
    """Return the level of a snapshot whose bytes verify, and whose note in the registry, if any, is the same.

    Parameters
    ----------
    noted : Noted, optional
        None where no registry was asked.
    signatures : tuple of mapping
        As of `explain_step.snapshot.signing.trusted`.
    listed : bool
        Whether the caller lists any key.
    timestamp : TimestampFound, optional
    """
    owners = sorted({str(s["owner"]) for s in signatures if s["counts"]})
    lacking: dict[str, str] = {}
    if noted is None:
        lacking["L1"] = "no registry was asked: the source is a directory; give models:/… or runs:/…"
    elif noted.sha256 is None:
        lacking["L1"] = f"{noted.where} notes no digest of a manifest"
    if not owners:
        lacking["L2"] = _unsigned(signatures, listed=listed)
    if timestamp is None:
        lacking["L3"] = "no time stamp was given (--timestamp)"
    elif not timestamp.valid:
        lacking["L3"] = f"the time stamp does not count: {timestamp.reason}"
    elif not owners:
        lacking["L3"] = f"time-stamped, but not signed by a listed key: {timestamp.reason}"
    level = next((name for name in ("L3", "L2", "L1") if name not in lacking), "L0")
    stamp = "" if timestamp is None else timestamp.reason
    return Trust(
        level=level,
        words=WORDS[level].format(owners=", ".join(owners), stamp=stamp),
        lacking=lacking,
    )


def _unsigned(signatures: tuple[Mapping[str, Any], ...], *, listed: bool) -> str:
    if not signatures:
        return "it has no signature"
    named = "; ".join(f"{str(s['key_id'])[:12]}…: {s['reason']}" for s in signatures[:3])
    hint = "" if listed else " (--allowed-keys lists them)"
    return f"not counted: a signature by {named}{hint}"
