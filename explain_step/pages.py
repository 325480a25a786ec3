"""From an explanation to what the page and the card are made from."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import explain_step
from explain_step.quantity import quantity
from explain_step.report import PageContext
from explain_step.snapshot import provenance

if TYPE_CHECKING:
    from explain_step.compute import Explanation
    from explain_step.snapshot import ModelRef
    from explain_step.types import Figure, Status

PACKAGES = ("mlflow", "numpy", "pandas", "scikit-learn", "xgboost", "lightgbm", "catboost")


def page_context(
    explanation: Explanation,
    *,
    ref: ModelRef,
    figures: tuple[Figure, ...],
    status: Status,
    reason: str,
    snapshot_id: str,
) -> PageContext:
    """Return the facts that page and card show about an explanation with the given snapshot id."""
    return PageContext(
        title=f"{ref.name}, version {ref.version}" if ref.name else ref.model_class or "model",
        identity={
            "name": ref.name,
            "version": ref.version,
            "run_id": ref.run_id,
            "model_id": ref.model_id,
            "uri": ref.uri,
            "model_class": ref.model_class,
            "digest": ref.digest,
            "binding": ref.binding,
            "binding_note": ref.binding_note,
        },
        status=status,
        reason=reason,
        quantity=quantity(explanation.subject, explanation.attributions),
        artifacts={artifact.name: artifact for artifact in explanation.artifacts},
        scores=explanation.scores,
        figures=figures,
        caveats=explanation.caveats,
        missing=explanation.missing,
        reproducibility=_reproducibility(explanation, ref=ref, snapshot_id=snapshot_id),
        labels=explanation.config.feature_labels,
    )


def _reproducibility(explanation: Explanation, *, ref: ModelRef, snapshot_id: str) -> dict[str, Any]:
    method = explanation.attributions.method
    facts = provenance.data(explanation.subject)
    return {
        "snapshot_id": snapshot_id,
        "model_digest": ref.digest,
        "data_digest": facts["digest"],
        "labels_digest": facts["labels_digest"],
        "background_digest": facts["background_digest"],
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
