"""Selection rate, true and false positive rate by segment, and their gaps, for classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from explain_step import privacy
from explain_step.artifacts.proportions import Share, newcombe, share
from explain_step.artifacts.segment_rules import Partition
from explain_step.artifacts.segment_suppression import complete, withheld
from explain_step.artifacts.segment_table import ALL, ALL_LEVEL, typed
from explain_step.config import Config
from explain_step.intervals import LEVEL
from explain_step.quantity import quantity
from explain_step.types import Artifact, Attributions, FloatArray, Subject

GAP = "(gap)"
COLUMNS = (
    "segment", "level", "sensitive", "output", "rate", "value", "ci_low", "ci_high", "n", "difference",
    "difference_ci_low", "difference_ci_high", "high_level", "low_level", "withheld",
)  # fmt: skip
TEXT = ("segment", "level", "output", "rate", "high_level", "low_level", "withheld")
RATES = ("selection_rate", "tpr", "fpr")


def rates_artifact(
    partitions: Sequence[Partition], subject: Subject, attributions: Attributions, *, config: Config
) -> Artifact | None:
    """Return the artifact ``segment_rates``; None where the model gives no class labels."""
    model, predicted = subject.model, subject.response.label
    if model.task == "regression" or predicted is None or model.classes is None:
        return None
    hidden = withheld(partitions, smallest=config.min_segment)
    records: list[dict[str, Any]] = []
    chosen = [model.positive or 0] if model.task == "binary" else range(len(model.classes))
    for k in chosen:
        selected = np.asarray(predicted == model.classes[k], dtype=np.bool_)
        actual = None if subject.y is None else np.asarray(subject.y == model.classes[k], dtype=np.bool_)
        counted = _Counted(
            selected=selected,
            bases=_bases(actual, len(selected)),
            weights=subject.weights,
            output=_name(model.output_names, k, binary=model.task == "binary"),
        )
        records.extend(_overall(counted))
        for p, gone in zip(partitions, hidden, strict=True):
            records.extend(_partition_records(p, counted, gone=gone, config=config))
    meta = _meta(config) | {"quantity": quantity(subject, attributions)}
    return Artifact(
        name="segment_rates", kind="segments", table=typed(records, COLUMNS, text=TEXT), meta=meta
    )


def _name(outputs: Sequence[str], k: int, *, binary: bool) -> str:
    return outputs[0] if binary else outputs[k]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counted:
    """Which rows are selected, and the rows that each rate is a share of."""

    selected: npt.NDArray[np.bool_]
    bases: dict[str, npt.NDArray[np.bool_]]
    weights: FloatArray | None
    output: str

    def share(self, rate: str, rows: npt.NDArray[np.bool_]) -> Share:
        chosen = self.bases[rate] & rows
        return share(self.selected[chosen], None if self.weights is None else self.weights[chosen])


def _bases(actual: npt.NDArray[np.bool_] | None, n: int) -> dict[str, npt.NDArray[np.bool_]]:
    everything = {"selection_rate": np.ones(n, dtype=np.bool_)}
    return everything if actual is None else everything | {"tpr": actual, "fpr": ~actual}


def _overall(counted: _Counted) -> list[dict[str, Any]]:
    everyone = np.ones(len(counted.selected), dtype=np.bool_)
    return [
        {
            "segment": ALL,
            "level": ALL_LEVEL,
            "output": counted.output,
            "rate": rate,
            **_values(counted.share(rate, everyone)),
        }
        for rate in counted.bases
    ]


def _values(found: Share) -> dict[str, Any]:
    low, high = found.interval()
    return {"value": found.value, "ci_low": low, "ci_high": high, "n": found.n}


def _partition_records(
    p: Partition, counted: _Counted, *, gone: npt.NDArray[np.bool_], config: Config
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    thin = _thin(p, counted, config=config)
    for rate in counted.bases:
        head = {
            "segment": p.name,
            "sensitive": bool(p.columns & set(config.sensitive)),
            "output": counted.output,
            "rate": rate,
        }
        shown: dict[str, Share] = {}
        for level, name in enumerate(p.levels):
            inside = p.codes == level
            if gone[level] or thin[rate][level] or not (counted.bases[rate] & inside).any():
                why = f"under {config.min_segment} rows to count, or would reveal a group that is"
                records.append({**head, "level": name, "withheld": why})
                continue
            shown[name] = counted.share(rate, inside)
            records.append({**head, "level": name, **_values(shown[name]), **_to_rest(counted, rate, inside)})
        records.extend([{**head, **_gap(shown)}] if len(shown) > 1 else [])
    return records


def _thin(p: Partition, counted: _Counted, *, config: Config) -> dict[str, npt.NDArray[np.bool_]]:
    """Return for each rate the levels with too few rows to count.

    Under ``strict``, selected rows minus false positives would give the true positives: there the two
    conditional rates are withheld together.
    """
    counts = {
        rate: np.bincount(p.codes[base], minlength=len(p.levels)) for rate, base in counted.bases.items()
    }
    if privacy.is_strict(config) and "tpr" in counts:
        counts["tpr"] = counts["fpr"] = np.minimum(counts["tpr"], counts["fpr"])
    return {rate: complete(found, smallest=config.min_segment) for rate, found in counts.items()}


def _to_rest(counted: _Counted, rate: str, inside: npt.NDArray[np.bool_]) -> dict[str, Any]:
    own, rest = counted.share(rate, inside), counted.share(rate, ~inside)
    if rest.n == 0:
        return {}
    low, high = newcombe(own, rest)
    return {"difference": own.value - rest.value, "difference_ci_low": low, "difference_ci_high": high}


def _gap(shown: dict[str, Share]) -> dict[str, Any]:
    """Return the largest difference between two levels; the interval allows for having searched it."""
    ordered = sorted(shown, key=lambda name: shown[name].value)
    low, high = ordered[0], ordered[-1]
    pairs = len(shown) * (len(shown) - 1) / 2
    bounds = newcombe(shown[high], shown[low], level=1 - (1 - LEVEL) / pairs)
    return {
        "level": GAP,
        "value": shown[high].value - shown[low].value,
        "ci_low": max(bounds[0], 0.0),
        "ci_high": bounds[1],
        "n": shown[high].n + shown[low].n,
        "high_level": high,
        "low_level": low,
    }


def _meta(config: Config) -> dict[str, Any]:
    return {
        "method": (
            "selection_rate: share of rows predicted to be the class; tpr, fpr: the same among rows that are "
            "and are "
            "not of the class. With several classes each is taken against all others."
        ),
        "interval": (
            "95%, over drawing other rows with this fitted model: Wilson for a rate, Newcombe for a "
            "difference; the "
            "gap is the largest difference between two levels, its interval is widened (Bonferroni over all "
            "pairs of "
            "levels) because it was searched, and does not go below 0. Weighted rows count as their "
            "effective number."
        ),
        "gap": "rows with level '(gap)': highest minus lowest rate of the levels shown",
        "min_segment": config.min_segment,
    }
