"""What a signature says of a snapshot: an in-toto statement of its manifest, in the shape of SLSA provenance."""

from __future__ import annotations

from typing import Any

from explain_step.errors import ExplainStepError
from explain_step.hashes import sha256_bytes
from explain_step.snapshot.manifest import MANIFEST, check_schema, parse

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:explain-step:snapshot:v1"
"""The form of the predicate: one with another key or meaning gets another number, and this one is still read."""
_NOTHING = object()


def statement(data: bytes) -> dict[str, Any]:
    """Return the in-toto statement about the bytes of a manifest."""
    manifest = parse(data)
    check_schema(manifest)
    model, facts = manifest["model"], manifest["data"]
    parameters = {
        "snapshot_id": manifest["snapshot_id"],
        "config_digest": manifest["config_digest"],
        "status": manifest["status"],
        "previous": manifest.get("previous"),
        "model": {
            key: model.get(key) for key in ("name", "version", "run_id", "model_id", "digest", "binding")
        },
    }
    inputs = {
        "model": model.get("digest"),
        "data": facts.get("digest"),
        "background": facts.get("background_digest"),
    }
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": MANIFEST, "digest": {"sha256": sha256_bytes(data)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "resolvedDependencies": [
                    {"name": name, "digest": {"sha256": digest}} for name, digest in inputs.items() if digest
                ],
            },
            "runDetails": {
                "builder": {"id": f"urn:explain-step:{manifest['tool']}"},
                "metadata": {"invocationId": manifest["snapshot_id"], "finishedOn": manifest["created_at"]},
            },
        },
    }


def pre_authentication(payload: bytes) -> bytes:
    """Return what DSSE signs: type and payload with their lengths, so that neither can slide into the other.

    Examples
    --------
    >>> pre_authentication(b"hello")
    b'DSSEv1 28 application/vnd.in-toto+json 5 hello'
    """
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def contradiction(payload: bytes, manifest: bytes) -> str | None:
    """Say in what a signed statement is not the one that is made of a manifest.

    A key may sign anything: a reader of the predicate alone must not learn of another snapshot, model or run.
    """
    try:
        said, made = parse(payload), statement(manifest)
    except ExplainStepError:
        return "it was made for another manifest"
    if any(said.get(key) != made[key] for key in ("_type", "predicateType", "subject")):
        return "it was made for another manifest"
    where = _first_difference(said, made)
    return None if where is None else f"what it says is not what the manifest says: {where}"


def _first_difference(said: Any, made: Any, where: str = "") -> str | None:
    if isinstance(said, dict) and isinstance(made, dict):
        inner = (
            _first_difference(said.get(key, _NOTHING), made.get(key, _NOTHING), f"{where}.{key}")
            for key in sorted({*said, *made})
        )
        return next((found for found in inner if found is not None), None)
    same = type(said) is type(made) and said == made
    return None if same else where.lstrip(".")[:200]
