"""Every installed distribution: version, installer, wheel tag, a digest of its files, and whether it is in use."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

from explain_step.hashes import sha256_bytes
from explain_step.snapshot.provenance_machine import unknown

_HEADER = re.compile(r"^(Name|Version):[ \t]*(.*?)[ \t\r]*$", re.M)
_TAG = re.compile(r"^Tag:[ \t]*(\S+)", re.M)
_BY_INSTALLER = ("/INSTALLER,", "/REQUESTED,", "/direct_url.json,", "/RECORD,", "/uv_cache.json,", ".pyc,")
"""Lines of RECORD that tell how something was installed, not what; scripts outside (``..``) hold the place."""


def distributions() -> list[dict[str, Any]]:
    """Return one record per distribution, sorted by name; the first on the path wins.

    Returns
    -------
    list of dict
        ``name, version, installer, wheel_tag, record_sha256, loaded, from_index``. The digest is over the lines of
        RECORD that name installed files with their SHA-256 (``record-v1``), so the same wheel gives the same digest in every
        environment; whether the files still are those of RECORD is not looked at. ``loaded`` tells whether this
        process has imported one of its modules, ``from_index`` whether it came from an index and not from a place of
        its own.
    """
    modules = {name.partition(".")[0] for name in list(sys.modules)}
    found: dict[str, dict[str, Any]] = {}
    for distribution in metadata.distributions():
        header = dict(_HEADER.findall(_head(distribution)))
        name = canonical_name(header.get("Name", ""))
        if name and name not in found:
            found[name] = _record(name, header.get("Version", ""), distribution, modules=modules)
    return [found[name] for name in sorted(found)]


def canonical_name(name: str) -> str:
    """Return the normalised name of a distribution (PEP 503).

    Examples
    --------
    >>> canonical_name("Scikit_Learn")
    'scikit-learn'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def _head(distribution: metadata.Distribution) -> str:
    """Return the header of the metadata: the description below it is long and not needed."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    return text.partition("\n\n")[0]


def _record(
    name: str, version: str, distribution: metadata.Distribution, *, modules: set[str]
) -> dict[str, Any]:
    lines = list(_installed(distribution.read_text("RECORD") or ""))
    tags = sorted(_TAG.findall(distribution.read_text("WHEEL") or ""))
    installer = (distribution.read_text("INSTALLER") or "").strip()
    digest: Any = unknown("it has no RECORD")
    if lines:
        digest = sha256_bytes("\n".join(["record-v1", *lines]).encode("utf-8", "surrogateescape"))
    return {
        "name": name,
        "version": version,
        "installer": installer or unknown("it does not say"),
        "wheel_tag": " ".join(tags) if tags else unknown("it was not installed from a wheel"),
        "record_sha256": digest,
        "loaded": bool(_top_level(lines) & modules),
        "from_index": distribution.read_text("direct_url.json") is None,
    }


def _installed(record: str) -> Iterator[str]:
    yield from sorted(
        line
        for line in record.splitlines()
        if line and not line.startswith(("..", "/")) and not any(part in line for part in _BY_INSTALLER)
    )


def _top_level(lines: Iterable[str]) -> set[str]:
    names = {line.partition(",")[0].partition("/")[0] for line in lines}
    return {name.partition(".")[0] for name in names if not name.endswith((".dist-info", ".data", ".libs"))}
