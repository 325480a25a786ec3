"""Read a snapshot back: parse, audit, then use. Nothing in a snapshot is ever executed or unpickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explain_step.errors import InvalidInput, SnapshotError, require
from explain_step.hashes import sha256_bytes
from explain_step.snapshot.manifest import (
    MANIFEST,
    ModelRef,
    check_schema,
    dump,
    is_sealed,
    parse,
    read_bounded,
    read_regular,
    score_from,
)
from explain_step.snapshot.tables import ERROR_PREFIX, MAX_CELLS, VALUE_PREFIX, read_parquet, size_of
from explain_step.types import Artifact, Caveat, Score, Status

if TYPE_CHECKING:
    import shap

ATTRIBUTIONS = "attributions"
TABLE_CELLS = 20_000_000
"""Of every other table, where somebody else's snapshot is judged."""
READ_CELLS = 2 * MAX_CELLS
"""Of all tables together, where a snapshot is read as a whole."""
MAX_TABLE_BYTES = 8 * MAX_CELLS
"""Of a table's file."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class Snapshot:
    """An explanation snapshot on disk, read.

    Attributes
    ----------
    id : str
        Identity of the content.
    status : {"complete", "degraded", "incomplete", ...}
        As judged when it was made; ``reason`` says why.
    manifest : dict
        The whole of ``manifest.json``.
    path : Path
        The directory; the page is ``path / "report.html"``.
    tables : mapping of str to DataFrame
        Every stored table, ``attributions`` among them where it was published.
    artifacts : mapping of str to Artifact
        The same tables with kind and meta, without ``attributions``.
    scores : tuple of Score
    caveats : tuple of Caveat
    model : ModelRef
    """

    id: str
    status: Status
    reason: str
    manifest: Mapping[str, Any]
    path: Path
    tables: Mapping[str, pd.DataFrame]
    artifacts: Mapping[str, Artifact]
    scores: tuple[Score, ...]
    caveats: tuple[Caveat, ...]
    model: ModelRef

    def __repr__(self) -> str:
        return f"Snapshot({self.id[:12]}, {self.status}, {len(self.tables)} tables, {str(self.path)!r})"

    def explanation(self, X: pd.DataFrame | None = None) -> shap.Explanation:
        """Return the stored attributions as a ``shap.Explanation`` over the raw input columns.

        Parameters
        ----------
        X : DataFrame, optional
            The explained rows, with the index they had: a snapshot holds no raw values. Rows are matched by
            index.

        Returns
        -------
        shap.Explanation
            Values of shape (rows, features) for one output and (rows, features, outputs) for several.

        Raises
        ------
        SnapshotError
            The snapshot holds no attributions (``privacy="strict"``).
        InvalidInput
            ``X`` lacks a column or a row.
        MissingDependency
            shap is not installed.
        """
        require("shap", extra="shap")
        import shap

        table = self.tables.get(ATTRIBUTIONS)
        if table is None:
            why = self.manifest.get("withheld", {}).get(ATTRIBUTIONS, "they were not stored")
            msg = f"Snapshot {self.id[:12]} has no attributions: {why}."
            raise SnapshotError(msg)
        outputs = list(dict.fromkeys(table["output"]))
        blocks = [table[table["output"] == output] for output in outputs]
        names = [c.removeprefix(VALUE_PREFIX) for c in table.columns if c.startswith(VALUE_PREFIX)]
        ids = blocks[0]["row_id"].tolist()
        errors = _stack(blocks, [f"{ERROR_PREFIX}{name}" for name in names])
        return shap.Explanation(
            values=_stack(blocks, [f"{VALUE_PREFIX}{name}" for name in names]),
            base_values=_stack(blocks, ["base_value"])[:, 0],
            data=None if X is None else _aligned(X, ids=ids, names=names),
            feature_names=names,
            output_names=outputs if len(outputs) > 1 else outputs[0],
            error_std=errors if errors.size else None,
        )


def _stack(blocks: list[pd.DataFrame], columns: list[str]) -> np.ndarray[Any, Any]:
    """Return (rows, columns[, outputs]); empty if a column is absent."""
    if not set(columns) <= set(blocks[0].columns):
        return np.empty(0)
    stacked = np.stack([block[columns].to_numpy(dtype=np.float64) for block in blocks], axis=2)
    return stacked[:, :, 0] if len(blocks) == 1 else stacked


def _aligned(X: pd.DataFrame, *, ids: list[str], names: list[str]) -> np.ndarray[Any, Any]:
    absent = [name for name in names if name not in X.columns]
    if absent:
        msg = f"Argument X must have the explained columns; missing: {absent[:5]}."
        raise InvalidInput(msg)
    positions = pd.Index(X.index.astype(str))
    if not positions.is_unique:
        msg = "Argument X must have a unique index, so that its rows can be matched with the explained ones."
        raise InvalidInput(msg)
    rows = positions.get_indexer(pd.Index(ids))
    if (rows < 0).any():
        lost = [i for i, row in zip(ids, rows, strict=True) if row < 0]
        msg = f"Argument X must hold the explained rows under the index they had; missing: {lost[:5]}."
        raise InvalidInput(msg)
    return np.asarray(X[names].iloc[rows].to_numpy())


def read_directory(path: str | Path) -> Snapshot:
    """Return the snapshot in a directory.

    The manifest and every table that is read must have the bytes the manifest names; `verify_directory`
    checks all other files too and names each that differs.

    Raises
    ------
    SnapshotError
        There is no snapshot, it was changed, or its schema is newer than this package.
    """
    root = Path(path)
    manifest = read_manifest(root)
    tables = _tables(root, manifest)
    try:
        return _assemble(manifest, root=root, tables=tables)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{root / MANIFEST} is malformed: {error}."
        raise SnapshotError(msg) from error


def _tables(root: Path, manifest: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return every table; many small files may not stand for more than a machine holds either."""
    files, left, found = _named(manifest), READ_CELLS, {}
    for name in manifest["tables"]:
        path = f"tables/{name}.parquet"
        data = _checked_bytes(root, files[path])
        try:
            found[name] = read_parquet(data, most_cells=min(left, MAX_CELLS))
            left -= size_of(data)
        except Exception as error:  # a forger's bytes raise anything in a parser
            msg = f"{path} of snapshot {str(root)!r} cannot be read as a table: {error}"
            raise SnapshotError(msg) from error
    return found


def _named(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {entry["path"]: entry for entry in manifest["files"]}


def read_manifest(root: Path) -> dict[str, Any]:
    """Return the audited manifest of a snapshot directory."""
    place = root / MANIFEST
    try:
        data = read_bounded(place)
    except OSError as error:
        msg = f"There is no snapshot in {str(root)!r}: {MANIFEST} cannot be read ({error.strerror})."
        raise SnapshotError(msg) from error
    manifest = parse(data)
    check_schema(manifest)
    try:
        sealed = is_sealed(manifest)
    except InvalidInput as error:
        msg = f"{place} holds what no manifest holds: {error}"
        raise SnapshotError(msg) from error
    if not sealed or dump(manifest) != data:
        msg = f"{place} was changed after it was written: its digest or its form is not the written one."
        raise SnapshotError(msg)
    return manifest


def _checked_bytes(root: Path, entry: Mapping[str, Any]) -> bytes:
    name = entry["path"]
    try:
        data = read_regular(root / name, most=min(entry["size"], MAX_TABLE_BYTES) + 1)
    except OSError as error:
        msg = f"Snapshot {str(root)!r} is not whole: {name} cannot be read ({error.strerror})."
        raise SnapshotError(msg) from error
    if len(data) > MAX_TABLE_BYTES:
        msg = f"{name} of snapshot {str(root)!r} must have at most {MAX_TABLE_BYTES:,} bytes, it has more."
        raise SnapshotError(msg)
    if sha256_bytes(data) != entry["sha256"]:
        msg = f"{name} of snapshot {str(root)!r} was changed after it was written; verify tells more."
        raise SnapshotError(msg)
    return data


def _assemble(manifest: dict[str, Any], *, root: Path, tables: dict[str, pd.DataFrame]) -> Snapshot:
    known = set(ModelRef.__dataclass_fields__)
    return Snapshot(
        id=manifest["snapshot_id"],
        status=manifest["status"],
        reason=manifest["reason"],
        manifest=manifest,
        path=root,
        tables=tables,
        artifacts={
            name: Artifact(name=name, kind=entry["kind"], table=tables[name], meta=entry["meta"])
            for name, entry in manifest["tables"].items()
            if name != ATTRIBUTIONS
        },
        scores=tuple(score_from(record) for record in manifest["scores"]),
        caveats=tuple(Caveat(**record) for record in manifest["caveats"]),
        model=ModelRef(**{k: v for k, v in manifest["model"].items() if k in known}),
    )


class StoredTables(Mapping[str, pd.DataFrame]):
    """The tables of a verified snapshot: their bytes are taken at once, each is parsed when it is asked for.

    Parameters
    ----------
    root : Path
        A directory that may be removed afterwards.
    manifest : mapping
        Verified.

    Raises
    ------
    SnapshotError
        The bytes are not those of the manifest.
    """

    def __init__(self, root: Path, manifest: Mapping[str, Any]) -> None:
        files = _named(manifest)
        self._bytes = {
            name: _checked_bytes(root, files[f"tables/{name}.parquet"]) for name in manifest["tables"]
        }

    def __getitem__(self, name: str) -> pd.DataFrame:
        most = MAX_CELLS if name == ATTRIBUTIONS else TABLE_CELLS
        return read_parquet(self._bytes[name], most_cells=most)

    def __iter__(self) -> Iterator[str]:
        return iter(self._bytes)

    def __len__(self) -> int:
        return len(self._bytes)
