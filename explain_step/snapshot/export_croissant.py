"""The tables of a snapshot as a Croissant dataset: each file with its digest, each column with its type."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from explain_step.errors import require

if TYPE_CHECKING:
    from explain_step.snapshot.read import Snapshot

EXTRA = "croissant"
METADATA = "croissant.json"
PLAIN = re.compile(r"[\w.:]+", re.ASCII)
"""Column names that can be identifiers; the standard's reader takes none with white space."""


def croissant(shot: Snapshot) -> str:
    """Return Croissant 1.0 JSON-LD of the tables; its files are looked for in ``snapshot/`` beside it.

    The explained rows are not in a snapshot; they are named by their digest. The same snapshot gives the same bytes.

    Raises
    ------
    MissingDependency
        mlcroissant is not installed.
    """
    require("mlcroissant", extra=EXTRA)
    import mlcroissant as mlc

    files = {entry["path"]: entry for entry in shot.manifest["files"]}
    paths = {name: f"tables/{name}.parquet" for name in shot.tables}
    data = shot.manifest["data"]
    dataset = (data.get("origin") or {}).get("dataset") or {}
    made = datetime.fromisoformat(shot.manifest["created_at"])
    metadata = mlc.Metadata(
        name=f"explanation-{shot.id[:12]}",
        description=(
            f"Tables of the explanation snapshot {shot.id} of a {shot.model.model_class}: "
            f"{shot.manifest['quantity'].get('phrase', '')}. Explained: {data['rows']} rows, frame-v1 {data['digest']}."
        ),
        date_created=made,
        date_published=made,
        cite_as=f"Explanation snapshot {shot.id}, {shot.manifest['tool']}",
        version="1.0.0",
        license=[str(dataset["licence"])] if dataset.get("licence") else None,
        distribution=[
            mlc.FileObject(
                id=path,
                name=path,
                content_url=f"snapshot/{path}",
                content_size=f"{files[path]['size']} B",
                encoding_formats=["application/x-parquet"],
                sha256=files[path]["sha256"],
            )
            for path in paths.values()
        ],
        record_sets=[
            _records(mlc, name, shot.tables[name], path)
            for name, path in paths.items()
            if len(shot.tables[name])
        ],
    )
    return json.dumps(_plain(metadata.to_json()), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _records(mlc: Any, name: str, table: pd.DataFrame, path: str) -> Any:
    fields = [
        mlc.Field(
            id=_id(name, k, str(column)),
            name=_id(name, k, str(column)),
            description=str(column),
            data_types=[_type(mlc, table[column])],
            source=mlc.Source(file_object=path, extract=mlc.Extract(column=str(column))),
        )
        for k, column in enumerate(table.columns)
    ]
    return mlc.RecordSet(id=name, name=name, fields=fields)


def _id(table: str, position: int, column: str) -> str:
    """Return the identifier of a column: its name where that is plain, else its position; the description has the name."""
    return f"{table}/{column if PLAIN.fullmatch(column) else f'column-{position}'}"


def _type(mlc: Any, column: pd.Series[Any]) -> Any:
    kinds = {
        "b": mlc.DataType.BOOL,
        "i": mlc.DataType.INTEGER,
        "u": mlc.DataType.INTEGER,
        "f": mlc.DataType.FLOAT,
    }
    return kinds.get(getattr(column.dtype, "kind", "O"), mlc.DataType.TEXT)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
