"""Which paths of the artifact store are sealed. Parsing is pure; `Sealer` asks the stores about what it found."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from explain_step.tracking.place import FOLDER, MANIFEST

APPEND_ONLY = frozenset({"decisions", "reviews", "signatures"})
"""Folders under ``explanations/`` (signatures also inside a snapshot) that only take new names."""
SNAPSHOT_ID = re.compile(r"[0-9a-f]{64}")
_MODEL = re.compile(r"(?:^|/)(?P<root>m-(?P<id>[0-9a-f]{32})/artifacts)(?=/|$)")
_RUN = re.compile(r"(?:^|/)(?P<root>(?P<id>[0-9a-f]{32})/artifacts)(?=/|$)")
_TRACE = re.compile(r"(?:^|/)traces/[^/]+/artifacts(?=/|$)")
Act = Literal["write", "delete"]
MAX_DECODINGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A path inside the artifact root of a logged model or a run.

    ``root`` is the path up to and with ``artifacts``; ``inside`` is what follows.
    """

    owner: Literal["model", "run"]
    id: str
    root: str
    inside: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of ``inside``."""
        return tuple(part for part in self.inside.split("/") if part)


def readings(path: str) -> list[str]:
    """Return every path that some layer between here and the disk could take a path for.

    Percent codes, back slashes, doubled slashes, ``..``, case, width, and dots or blanks at the end of a name:
    each reading is judged, and one that is sealed seals the path.

    Examples
    --------
    >>> readings("1/A//b.")
    ['1/A/b.', '1/a/b']
    """
    found = [_collapsed(path)]
    text = path
    for _ in range(MAX_DECODINGS):
        found.append(_collapsed(text.replace("\\", "/")))
        found.append(_loosest(found[-1]))
        decoded = unquote(text, errors="replace")
        if decoded == text:
            break
        text = decoded
    return list(dict.fromkeys(found))


def _collapsed(path: str) -> str:
    plain = posixpath.normpath(posixpath.join("/", path))
    return plain.lstrip("/")


def _loosest(path: str) -> str:
    names = (unicodedata.normalize("NFKC", name).casefold() for name in path.split("/"))
    kept = ("".join(c for c in name if c.isprintable()).rstrip(". ").partition(":")[0] for name in names)
    return _collapsed("/".join(kept))


def spots(path: str) -> Iterator[Spot]:
    """Yield every artifact root of a model or run that a path lies in, as the path is written."""
    for owner, pattern in (("model", _MODEL), ("run", _RUN)):
        for match in pattern.finditer(path):
            yield Spot(
                owner="model" if owner == "model" else "run",
                id=match["id"],
                root=path[: match.end()],
                inside=path[match.end() :].lstrip("/"),
            )


def in_trace(path: str) -> bool:
    """Tell whether a path lies in the artifacts of a trace."""
    return _TRACE.search(path) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """What the stores know about a model or a run.

    ``held``: by which protected version. ``ready``: a finished model. ``deleted``: its files may be removed.
    """

    known: bool
    ready: bool = False
    deleted: bool = False
    held: str | None = None


class Sealer:
    """Judges paths.

    Parameters
    ----------
    owner : callable
        A `Spot` to its `Owner`. An error of it refuses.
    children : callable
        A folder to the names directly in it and whether each is a folder.
    """

    def __init__(self, owner: Callable[[Spot], Owner], children: Callable[[str], dict[str, bool]]) -> None:
        self._owner = owner
        self._children = children

    def problem(self, path: str, act: Act) -> str | None:
        """Say why a path may not be written or deleted; None where it may."""
        for reading in readings(path):
            inside = list(spots(reading))
            for spot in inside:
                why = self._of_spot(spot, act)
                if why is not None:
                    return why
            if act == "delete" and not inside and not in_trace(reading) and self._children(reading):
                return "it is a folder that may hold sealed models and evidence"
        return None

    def overtaken(self, path: str) -> str | None:
        """Say why a file that has just been written may not stay: its model or run was proven or promoted meanwhile."""
        found = {spot.root.casefold(): spot for reading in readings(path) for spot in spots(reading)}
        for spot in found.values():
            if spot.parts[:1] == (FOLDER,):
                continue
            owner = self._owner(spot)
            if owner.held is not None:
                return owner.held
            if owner.ready and self._of_all_evidence(spot) is not None:
                return f"logged model m-{spot.id} is finished and explained"
        return None

    def _of_spot(self, spot: Spot, act: Act) -> str | None:
        if spot.parts[:1] == (FOLDER,):
            why = self._of_evidence(spot, act)
        elif act == "delete" and not spot.parts:
            why = self._of_owner(spot, act) or self._of_root(spot)
        else:
            why = self._of_owner(spot, act)
        return why

    def _of_owner(self, spot: Spot, act: Act) -> str | None:
        """Files outside ``explanations/``: those of a finished model, and of a run behind a protected version."""
        owner = self._owner(spot)
        what = f"logged model m-{spot.id}" if spot.owner == "model" else f"run {spot.id}"
        if owner.held is not None:
            return f"{what} is behind a protected version: {owner.held}"
        if spot.owner == "run":
            return None
        if not owner.known:
            return f"there is no {what}"
        if owner.deleted:
            return None if act == "delete" else f"{what} is deleted"
        if owner.ready and "MLmodel" in self._children(spot.root):
            return f"{what} is READY, its files are sealed; log a new model instead"
        return None

    def _of_root(self, spot: Spot) -> str | None:
        """Judge the whole root: as sealed as the evidence in it, unless its owner is deleted."""
        return self._of_evidence(Spot(owner=spot.owner, id=spot.id, root=spot.root, inside=FOLDER), "delete")

    def _of_evidence(self, spot: Spot, act: Act) -> str | None:
        parts = spot.parts
        if act == "delete" and self._may_go(spot):
            return None
        if len(parts) == 1:
            return self._of_all_evidence(spot) if act == "delete" else None
        if parts[1] in APPEND_ONLY:
            return self._append_only(spot, act, depth=3)
        if SNAPSHOT_ID.fullmatch(parts[1]):
            return self._of_snapshot(spot, act)
        if act == "write" and spot.owner == "model" and self._owner(spot).ready:
            return f"{FOLDER}/ of a finished model takes snapshots and their records only"
        return None

    def _of_snapshot(self, spot: Spot, act: Act) -> str | None:
        parts = spot.parts
        if MANIFEST not in self._children(f"{spot.root}/{FOLDER}/{parts[1]}"):
            return None
        if parts[2:3] == ("signatures",):
            return self._append_only(spot, act, depth=4)
        return f"the snapshot {parts[1][:12]}… is finished and sealed"

    def _append_only(self, spot: Spot, act: Act, *, depth: int) -> str | None:
        parts = spot.parts
        where = "/".join(parts[:-1])
        if act == "delete":
            return f"{'/'.join(parts)} is kept for good"
        if len(parts) != depth:
            return f"{'/'.join(parts[: depth - 1])} takes files only"
        if parts[-1] in self._children(f"{spot.root}/{where}"):
            return f"{'/'.join(parts)} is there already and is never overwritten"
        return None

    def _of_all_evidence(self, spot: Spot) -> str | None:
        folder = f"{spot.root}/{FOLDER}"
        for name, is_folder in self._children(folder).items():
            if is_folder and (name in APPEND_ONLY or MANIFEST in self._children(f"{folder}/{name}")):
                return f"it holds {FOLDER}/{name}, which is sealed"
        return None

    def _may_go(self, spot: Spot) -> bool:
        """Whether the owner is deleted, so that its files may be removed (``mlflow gc``)."""
        owner = self._owner(spot)
        return owner.deleted and owner.held is None
