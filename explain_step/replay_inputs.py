"""Which input of a recomputation is not the recorded one: model, data, config, seed, environment, code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from explain_step.replay_result import InputDifference

NUMERIC_LIBRARIES = (
    *("numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "polars", "shap"),
    *("xgboost", "lightgbm", "catboost", "threadpoolctl"),
)
"""Distributions whose version can change a number or the type of a column."""
DATA_WORDS = {
    "digest": "the explained rows are others",
    "labels_digest": "the labels are others",
    "weights_digest": "the sample weights are others",
    "background_digest": "the background rows are others",
    "target": "the target has another name",
}
SHOWN = 6


def data_differences(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[InputDifference]:
    """Yield what differs between the recorded and the given rows, labels, weights and background."""
    for key, words in DATA_WORDS.items():
        if recorded.get(key) != found.get(key):
            detail = _rows_detail(recorded, found) if key == "digest" else ""
            facts = {"recorded": recorded.get(key), "found": found.get(key)}
            yield InputDifference(input="data", message=f"{words}{detail}", facts={"key": key, **facts})


def _rows_detail(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Say how the rows differ, as far as the record tells: number, columns, types, digests of columns."""
    if recorded.get("rows") != found.get("rows"):
        return f": {found.get('rows')} instead of {recorded.get('rows')}"
    ours = {c["name"]: c for c in recorded.get("columns") or ()}
    theirs = {c["name"]: c for c in found.get("columns") or ()}
    if set(ours) != set(theirs):
        lacking, more = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
        named = (("columns missing", lacking), ("columns more", more))
        return ": " + ", ".join(f"{words} {names[:SHOWN]}" for words, names in named if names)
    if list(ours) != list(theirs):
        return ": the columns stand in another order"
    typed = [
        f"{n} is {theirs[n]['type']}, recorded {ours[n]['type']}"
        for n in ours
        if ours[n]["type"] != theirs[n]["type"]
    ]
    if typed:
        return f": {'; '.join(typed[:SHOWN])}"
    if _rowset(recorded) is not None and _rowset(recorded) == _rowset(found):
        return ": the same rows stand in another order"
    changed = changed_columns(recorded, found)
    if changed is None:
        return ""
    return f": column {', '.join(changed[:SHOWN])}" if changed else ": no column can be named"


def changed_columns(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str] | None:
    """Return the columns with other values, of as many rows with the same columns; None where that is not known."""
    before, now = _column_digests(recorded), _column_digests(found)
    same = recorded.get("rows") == found.get("rows") and list(before) == list(now)
    return [name for name in before if before[name] != now[name]] if before and same else None


def _rowset(data: Mapping[str, Any]) -> tuple[Any, str] | None:
    """Return the order-free digest of the rows with its algorithm, where there is one."""
    origin = data.get("origin") or {}
    digest = origin.get("rowset_digest")
    return (origin.get("rowset_algorithm"), digest) if isinstance(digest, str) else None


def _column_digests(data: Mapping[str, Any]) -> Mapping[str, str]:
    digests = (data.get("origin") or {}).get("column_digests")
    return digests if isinstance(digests, Mapping) and "reason" not in digests else {}


def config_differences(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[InputDifference]:
    """Yield each option with another value; the seed is an input of its own."""
    for key in sorted({*recorded, *found}):
        before, now = recorded.get(key), found.get(key)
        if before != now:
            facts = {"option": key, "recorded": before, "found": now}
            message = f"{key} is {_short(now)}, recorded {_short(before)}"
            yield InputDifference(input="seed" if key == "seed" else "config", message=message, facts=facts)


def environment_differences(
    recorded: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[InputDifference]:
    """Yield differences that can change numbers one by one, and all other packages in one line."""
    for key in ("machine", "cpu", "libc", "os"):
        if recorded.get(key) != found.get(key):
            yield _environment(key, recorded.get(key), found.get(key))
    for key in ("version", "implementation"):
        before, now = (e.get("python", {}).get(key) for e in (recorded, found))
        if before != now:
            yield _environment(f"python {key}", before, now)
    for key in sorted({*recorded.get("threads", {}), *found.get("threads", {})}):
        before, now = (e.get("threads", {}).get(key) for e in (recorded, found))
        if before != now:
            yield _environment(key, before, now)
    used = {d["name"] for d in recorded.get("distributions") or () if d.get("loaded")} or None
    yield from _package_differences(recorded.get("packages", {}), found.get("packages", {}), used=used)
    yield from _file_differences(recorded, found)


def _package_differences(
    before: Mapping[str, str], now: Mapping[str, str], *, used: set[str] | None
) -> Iterator[InputDifference]:
    """Yield libraries that can change numbers and were in use one by one, all others in one line."""
    numeric = {n for n in NUMERIC_LIBRARIES if used is None or n in used}
    changed = sorted(n for n in {*before, *now} if before.get(n) != now.get(n) and n != "explain-step")
    for name in (n for n in changed if n in numeric):
        yield _environment(name, before.get(name), now.get(name))
    rest = [n for n in changed if n not in numeric]
    if rest:
        facts = {n: [before.get(n), now.get(n)] for n in rest}
        message = f"{len(rest)} other packages have another version or are there only once"
        yield InputDifference(input="environment", message=message, facts={"packages": facts})


def _file_differences(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[InputDifference]:
    """Yield libraries of the same version whose installed files are others."""
    before, now = _record_digests(recorded), _record_digests(found)
    for name in NUMERIC_LIBRARIES:
        a, b = before.get(name), now.get(name)
        if a and b and a[0] == b[0] and a[1] != b[1]:
            message = f"{name} {a[0]} was installed from other files"
            yield InputDifference(
                input="environment", message=message, facts={"recorded": a[1], "found": b[1]}
            )


def _record_digests(environment: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    rows = environment.get("distributions")
    if not isinstance(rows, list):
        return {}
    return {
        row["name"]: (row["version"], row["record_sha256"])
        for row in rows
        if isinstance(row.get("record_sha256"), str)
    }


def _environment(name: str, before: Any, now: Any) -> InputDifference:
    message = f"{name} is {_short(now)}, recorded {_short(before)}"
    return InputDifference(
        input="environment", message=message, facts={"name": name, "recorded": before, "found": now}
    )


def same_numbers_expected(differences: list[InputDifference]) -> bool:
    """Tell whether libraries and processor are the recorded ones, so that single precision rounds alike."""
    names = {str(d.facts.get("name")) for d in differences if d.input == "environment"}
    files = any("was installed from other files" in d.message for d in differences)
    return not files and not names & {*NUMERIC_LIBRARIES, "machine", "cpu", "libc", "python version"}


def code_differences(
    recorded: Mapping[str, Any], found: Mapping[str, Any], *, code: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[InputDifference]:
    """Yield differences of this package and of the methods that it chose.

    Parameters
    ----------
    recorded, found : mapping
        The two manifests.
    code, now : mapping
        The two records of code.
    """
    before, after = recorded.get("tool"), found.get("tool")
    if before != after:
        yield InputDifference(input="code", message=f"the tool is {after}, recorded {before}")
    a, b = ((c.get("explain_step") or {}).get("source_sha256") for c in (code, now))
    if before == after and a and b and a != b:
        yield InputDifference(input="code", message=f"{after} has other source files than the recorded one")
    for old in recorded.get("methods", ()):
        new = next((m for m in found.get("methods", ()) if m["of"] == old["of"]), None)
        if new is not None and (old["name"], old["version"]) != (new["name"], new["version"]):
            message = (
                f"{old['of']}: method {new['name']} {new['version']}, recorded {old['name']} {old['version']}"
            )
            yield InputDifference(input="code", message=message)


def provenance_record(root: Path, name: str) -> dict[str, Any]:
    """Return a file of ``provenance/``; empty where the snapshot has none. Its bytes were verified before."""
    place = root / "provenance" / f"{name}.json"
    if not place.is_file():
        return {}
    record = json.loads(place.read_text(encoding="utf-8"))
    return record if isinstance(record, dict) else {}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
