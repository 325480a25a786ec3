"""From an explanation to what the page and the card are made from."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import explain_step
from explain_step.compute import described
from explain_step.report import PageContext
from explain_step.snapshot import provenance
from explain_step.snapshot.completing import missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from explain_step.compute import Explanation
    from explain_step.snapshot import ModelRef, Snapshot
    from explain_step.types import Figure, Status

PACKAGES = ("mlflow", "numpy", "pandas", "scikit-learn", "xgboost", "lightgbm", "catboost")


def page_context(
    explanation: Explanation,
    *,
    ref: ModelRef,
    status: Status,
    reason: str,
    snapshot_id: str,
) -> PageContext:
    """Return the facts that page and card show about an explanation with the given snapshot id, without its figures."""
    return PageContext(
        title=_title(ref),
        identity=_identity(ref),
        status=status,
        reason=reason,
        quantity=described(explanation),
        artifacts={artifact.name: artifact for artifact in explanation.artifacts},
        scores=explanation.scores,
        caveats=explanation.caveats,
        missing=explanation.missing,
        reproducibility=_reproducibility(explanation, ref=ref, snapshot_id=snapshot_id),
        labels=explanation.config.feature_labels,
    )


def stored_context(shot: Snapshot, *, ref: ModelRef, snapshot_id: str) -> PageContext:
    """Return the same facts about a stored snapshot, for a model that was found later, without its figures."""
    facts = shot.manifest
    return PageContext(
        title=_title(ref),
        identity=_identity(ref),
        status=shot.status,
        reason=shot.reason,
        quantity=facts["quantity"],
        artifacts=shot.artifacts,
        scores=shot.scores,
        caveats=shot.caveats,
        missing=missing(facts),
        reproducibility={
            "snapshot_id": snapshot_id,
            "model_digest": ref.digest,
            **{name: facts["data"].get(key) for name, key in DATA_DIGESTS.items()},
            "seed": facts["config"]["seed"],
            "method": _stored_method(facts),
            "packages": _stored_versions(shot),
        },
        labels=facts["config"].get("feature_labels") or {},
    )


DATA_DIGESTS = {
    "data_digest": "digest",
    "labels_digest": "labels_digest",
    "background_digest": "background_digest",
}


def _title(ref: ModelRef) -> str:
    return f"{ref.name}, version {ref.version}" if ref.name else ref.model_class or "model"


def _identity(ref: ModelRef) -> dict[str, str | None]:
    return {
        "name": ref.name,
        "version": ref.version,
        "run_id": ref.run_id,
        "model_id": ref.model_id,
        "uri": ref.uri,
        "model_class": ref.model_class,
        "digest": ref.digest,
        "binding": ref.binding,
        "binding_note": ref.binding_note,
    }


def stored_figures(shot: Snapshot) -> tuple[Figure, ...]:
    """Return the figures of a stored snapshot."""
    from explain_step.types import Figure

    known = Figure.__dataclass_fields__
    return tuple(
        Figure(png=(shot.path / entry["path"]).read_bytes(), **{k: v for k, v in entry.items() if k in known})
        for entry in shot.manifest["figures"]
    )


def _stored_method(facts: Mapping[str, Any]) -> str:
    of: Mapping[str, Any] = next((m for m in facts["methods"] if m["of"] == "attributions"), {})
    return f"{of.get('name', '')} {of.get('version', '')}".strip()


def _stored_versions(shot: Snapshot) -> dict[str, str]:
    """Return the versions at the time of the explanation, not today's."""
    found = json.loads((shot.path / "provenance" / "environment.json").read_bytes()).get("packages", {})
    plain = {
        name: entry.get("version", "") if isinstance(entry, dict) else entry for name, entry in found.items()
    }
    here = {name: plain[name] for name in PACKAGES if name in plain}
    return {"explain_step": str(shot.manifest["tool"]).removeprefix("explain-step "), **here}


def _reproducibility(explanation: Explanation, *, ref: ModelRef, snapshot_id: str) -> dict[str, Any]:
    method = explanation.attributions.method
    facts = provenance.data(explanation.subject)
    return {
        "snapshot_id": snapshot_id,
        "model_digest": ref.digest,
        **{name: facts[key] for name, key in DATA_DIGESTS.items()},
        "seed": explanation.config.seed,
        "method": f"{method.name} {method.version}",
        "packages": {"explain_step": explain_step.__version__, **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
