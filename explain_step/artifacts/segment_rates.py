"""Selection rate, true and false positive rate by segment, and their gaps, for classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import privacy
from explain_step.artifacts.metric_deltas import confusion
from explain_step.artifacts.proportions import Share, newcombe
from explain_step.artifacts.segment_rules import Partition
from explain_step.artifacts.segment_suppression import complete, withheld
from explain_step.artifacts.segment_table import ALL, ALL_LEVEL, typed
from explain_step.config import Config
from explain_step.intervals import LEVEL
from explain_step.quantity import quantity
from explain_step.types import Artifact, Attributions, FittedModel, FloatArray, Subject

GAP = "(gap)"
COLUMNS = (
    "segment", "level", "sensitive", "output", "rate", "value", "ci_low", "ci_high", "n", "difference",
    "difference_ci_low", "difference_ci_high", "high_level", "low_level", "withheld",
)  # fmt: skip
TEXT = ("segment", "level", "output", "rate", "high_level", "low_level", "withheld")
RATES = ("selection_rate", "tpr", "fpr")


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """How often each class was true and said in each level of a segment; rates are shares of these rows.

    Attributes
    ----------
    name : str
    levels : tuple of str
    columns : frozenset of str
        The columns that the segment reads.
    rows, weight, square : ndarray of shape (levels, true classes, said classes)
        See `metric_deltas.confusion`.
    """

    name: str
    levels: tuple[str, ...]
    columns: frozenset[str]
    rows: FloatArray
    weight: FloatArray
    square: FloatArray

    def share(self, rate: str, k: int, levels: Any = slice(None)) -> Share:
        """Return the share of class ``k`` among the rows of a rate, in the given levels."""
        base = self.base(rate, k)
        n, w, ww = (float(v[levels][:, base].sum()) for v in (self.rows, self.weight, self.square))
        if not w > 0:
            return Share(value=float("nan"), size=0.0, n=0 if n == 0 else int(n))
        hits = float(self.weight[levels][:, base, k].sum())
        return Share(value=hits / w, size=w**2 / max(ww, 1e-300), n=int(n))

    def base(self, rate: str, k: int) -> npt.NDArray[np.bool_]:
        """Return which true classes a rate is a share of."""
        own = np.arange(self.rows.shape[1]) == k
        return np.ones_like(own) if rate == "selection_rate" else own if rate == "tpr" else ~own

    @property
    def rates(self) -> tuple[str, ...]:
        """The rates that can be told: without labels only how many rows are selected."""
        return RATES if self.rows.shape[1] > 1 else RATES[:1]


def rates_artifact(
    partitions: Sequence[Partition], subject: Subject, attributions: Attributions, *, config: Config
) -> Artifact | None:
    """Return the artifact ``segment_rates``; None where the model gives no class labels."""
    if not has_rates(subject):
        return None
    counted = []
    for p in partitions:
        rows, weight, square = confusion(subject, p.codes, groups=len(p.levels))
        parts = {"rows": rows, "weight": weight, "square": square}
        counted.append(Counted(name=p.name, levels=p.levels, columns=p.columns, **parts))
    hidden = withheld(partitions, smallest=config.min_segment)
    table = rates_table(counted, hidden, subject.model, config=config)
    meta = _meta(config) | {"quantity": quantity(subject, attributions)}
    return Artifact(name="segment_rates", kind="segments", table=table, meta=meta)


def has_rates(subject: Subject) -> bool:
    """Return whether the model says classes."""
    model = subject.model
    return model.task != "regression" and subject.response.label is not None and model.classes is not None


def rates_table(
    counted: Sequence[Counted],
    hidden: Sequence[npt.NDArray[np.bool_]],
    model: FittedModel,
    *,
    config: Config,
) -> pd.DataFrame:
    """Return the table ``segment_rates`` of segments whose rows are counted, and which of their levels are withheld."""
    records: list[dict[str, Any]] = []
    binary = model.task == "binary"
    for k in [model.positive or 0] if binary else range(len(model.classes or ())):
        output = model.output_names[0 if binary else k]
        records.extend(_overall(counted[0], k, output=output))
        for found, gone in zip(counted, hidden, strict=True):
            records.extend(_partition_records(found, k, output=output, gone=gone, config=config))
    return typed(records, COLUMNS, text=TEXT)


def _overall(counted: Counted, k: int, *, output: str) -> list[dict[str, Any]]:
    head = {"segment": ALL, "level": ALL_LEVEL, "output": output}
    return [{**head, "rate": rate, **_values(counted.share(rate, k))} for rate in counted.rates]


def _values(found: Share) -> dict[str, Any]:
    low, high = found.interval()
    return {"value": found.value, "ci_low": low, "ci_high": high, "n": found.n}


def _partition_records(
    counted: Counted, k: int, *, output: str, gone: npt.NDArray[np.bool_], config: Config
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    thin = _thin(counted, k, config=config)
    for rate in counted.rates:
        head = {
            "segment": counted.name,
            "sensitive": bool(counted.columns & set(config.sensitive)),
            "output": output,
            "rate": rate,
        }
        shown: dict[str, Share] = {}
        for level, name in enumerate(counted.levels):
            own = counted.share(rate, k, [level])
            if gone[level] or thin[rate][level] or not own.n:
                why = f"under {config.min_segment} rows to count, or would reveal a group that is"
                records.append({**head, "level": name, "withheld": why})
                continue
            shown[name] = own
            rest = counted.share(rate, k, [i for i in range(len(counted.levels)) if i != level])
            records.append({**head, "level": name, **_values(own), **_to_rest(own, rest)})
        records.extend([{**head, **_gap(shown)}] if len(shown) > 1 else [])
    return records


def _thin(counted: Counted, k: int, *, config: Config) -> dict[str, npt.NDArray[np.bool_]]:
    """Return for each rate the levels with too few rows to count.

    Under ``strict``, selected rows minus false positives would give the true positives: there the two
    conditional rates are withheld together.
    """
    counts = {
        rate: counted.rows[:, counted.base(rate, k)].sum(axis=(1, 2)).astype(np.int64)
        for rate in counted.rates
    }
    if privacy.is_strict(config) and "tpr" in counts:
        counts["tpr"] = counts["fpr"] = np.minimum(counts["tpr"], counts["fpr"])
    return {rate: complete(found, smallest=config.min_segment) for rate, found in counts.items()}


def _to_rest(own: Share, rest: Share) -> dict[str, Any]:
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
