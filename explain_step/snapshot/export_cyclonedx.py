"""A snapshot as a CycloneDX bill of materials: the model, what it was explained on, and the installed distributions."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from explain_step.errors import ExplainStepError, require

if TYPE_CHECKING:
    from explain_step.snapshot.read import Snapshot

EXTRA = "bom"
PREFIX = "explain_step"
TASKS = {"binary": "classification", "multiclass": "classification", "regression": "regression"}


def cyclonedx(shot: Snapshot, environment: Mapping[str, Any]) -> str:
    """Return CycloneDX 1.6 as JSON, checked against its schema. The same snapshot gives the same bytes.

    Parameters
    ----------
    shot : Snapshot
    environment : mapping
        The snapshot's ``provenance/environment.json``.

    Raises
    ------
    MissingDependency
        cyclonedx-python-lib is not installed.

    Notes
    -----
    Digests that are no SHA-256 of one file (of a model's folder, of rows, of a RECORD) are properties named after their
    algorithm: the field ``hashes`` would be read as the digest of a file. Measured performance is in the model card, which
    the library does not write itself.
    """
    require("cyclonedx", extra=EXTRA, package="cyclonedx-python-lib[json-validation]")
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    plain = json.loads(JsonV1Dot6(_bom(shot, environment)).output_as_string())
    plain["metadata"]["component"]["modelCard"] = _card(shot)
    text = json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        msg = f"The snapshot {shot.id[:12]} gives no valid CycloneDX: {str(wrong)[:300]}."
        raise ExplainStepError(msg)
    return text


def _bom(shot: Snapshot, environment: Mapping[str, Any]) -> Any:
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    tool, _, version = str(shot.manifest["tool"]).partition(" ")
    metadata = BomMetaData(
        component=_model(shot),
        timestamp=datetime.fromisoformat(shot.manifest["created_at"]),
        tools=ToolRepository(
            components=[Component(type=ComponentType.APPLICATION, name=tool, version=version, bom_ref="tool")]
        ),
    )
    parts = [_rows(shot), *_libraries(environment)]
    number = uuid.uuid5(uuid.NAMESPACE_URL, shot.id)
    bom = Bom(metadata=metadata, components=parts, serial_number=number, version=1)
    bom.register_dependency(metadata.component, parts)
    return bom


def _model(shot: Snapshot) -> Any:
    from cyclonedx.model.component import Component, ComponentType

    model = shot.model
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model.name or model.model_class,
        version=model.version,
        bom_ref="model",
        properties=_properties(
            {
                "class": model.model_class,
                "model_id": model.model_id,
                "run_id": model.run_id,
                "directory-v1": model.digest,
                "binding": model.binding,
                "snapshot_id": shot.id,
                "status": f"{shot.status}: {shot.reason}",
            }
        ),
    )


def _rows(shot: Snapshot) -> Any:
    from cyclonedx.model.component import Component, ComponentType

    data = shot.manifest["data"]
    named = (data.get("origin") or {}).get("dataset") or {}
    facts = {
        "rows": data["rows"],
        "frame-v1": data["digest"],
        "labels frame-v1": data.get("labels_digest"),
        "background frame-v1": data.get("background_digest"),
        **{key: named.get(key) for key in ("source", "split", "licence")},
    }
    return Component(
        type=ComponentType.DATA, name="explained rows", bom_ref="rows", properties=_properties(facts)
    )


def _libraries(environment: Mapping[str, Any]) -> Iterator[Any]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for record in environment.get("distributions") or ():
        name, version = str(record["name"]), str(record["version"])
        purl = PackageURL(type="pypi", name=name, version=version)
        digest = record.get("record_sha256")
        facts = {"record-v1": digest if isinstance(digest, str) else None, "loaded": record.get("loaded")}
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            purl=purl,
            bom_ref=purl.to_string(),
            properties=_properties(facts),
        )


def _properties(facts: Mapping[str, Any]) -> list[Any]:
    from cyclonedx.model import Property

    return [
        Property(name=f"{PREFIX}:{key}", value=str(value))
        for key, value in facts.items()
        if value is not None
    ]


def _card(shot: Snapshot) -> dict[str, Any]:
    features = [{"format": str(column["type"])} for column in shot.manifest["data"].get("columns") or ()]
    task = shot.manifest["config"].get("task")
    parameters = {
        **({"task": TASKS[task]} if task in TASKS else {}),
        "architectureFamily": shot.model.model_class,
        "datasets": [{"ref": "rows"}],
        **({"inputs": _distinct(features)} if features else {}),
        "outputs": [{"format": str(shot.manifest["quantity"].get("phrase", ""))}],
    }
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(shot))},
    }


def _distinct(items: list[dict[str, str]]) -> list[dict[str, str]]:
    return [dict(found) for found in dict.fromkeys(tuple(item.items()) for item in items)]


def _metrics(shot: Snapshot) -> Iterator[dict[str, Any]]:
    if "performance" not in shot.tables:
        return
    for row in shot.tables["performance"].to_dict("records"):
        if math.isnan(row["value"]):
            continue
        bounds = {"lowerBound": row["ci_low"], "upperBound": row["ci_high"]}
        interval = {key: repr(value) for key, value in bounds.items() if not math.isnan(value)}
        metric = {"type": str(row["metric"]), "value": repr(row["value"])}
        yield {**metric, **({"confidenceInterval": interval} if interval else {})}
