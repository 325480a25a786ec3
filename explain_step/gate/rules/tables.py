"""Reading the tables of a snapshot: what is missing is said, what is no number is NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.gate.evidence import Evidence
from explain_step.gate.naming import named, nearest
from explain_step.gate.rules.base import Number

AGGREGATE = "(mean over outputs)"
ZERO_SHARE = 1e-9
"""A share below is the rounding of sums over a model that does not use the column."""
SHARE_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Lacking:
    """Why a table cannot be used."""

    reason: str


def table(
    evidence: Evidence, name: str, *, text: Sequence[str] = (), numbers: Sequence[str] = ()
) -> pd.DataFrame | Lacking:
    """Return some columns of a table: text as str or None, numbers as float (NaN where they are none)."""
    return frame_of(evidence.tables.get(name), name, text=text, numbers=numbers, why=_why(evidence, name))


def frame_of(
    found: pd.DataFrame | None, name: str, *, text: Sequence[str], numbers: Sequence[str], why: str = ""
) -> pd.DataFrame | Lacking:
    """Return `table` of a table at hand."""
    if found is None:
        return Lacking(reason=f"the snapshot has no table `{name}`{why}")
    lacking = [c for c in (*text, *numbers) if c not in found.columns]
    if lacking:
        return Lacking(reason=f"the table `{name}` has no column {', '.join(f'`{c}`' for c in lacking)}")
    if found.empty:
        return Lacking(reason=f"the table `{name}` has no rows")
    columns: dict[str, Any] = {c: _texts(found[c]) for c in text}
    columns |= {c: _floats(found[c]) for c in numbers}
    return pd.DataFrame(columns)


def _texts(column: pd.Series[Any]) -> npt.NDArray[np.object_]:
    raw, missing = column.to_numpy(dtype=object), column.isna().to_numpy(dtype=bool)
    texts = [None if m else v if type(v) is str else str(v) for v, m in zip(raw, missing, strict=True)]
    return np.array(texts, dtype=object)


def _floats(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    if column.dtype == np.float64:
        return column.to_numpy()
    return np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)


def _why(evidence: Evidence, name: str) -> str:
    """Return the reason that the manifest gives for a missing section."""
    section = as_mapping(as_mapping(evidence.manifest.get("sections")).get(name.removesuffix("_rates")))
    reason = section.get("reason")
    return f": {reason}" if isinstance(reason, str) else ""


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping, an empty one where a manifest has something else."""
    return value if isinstance(value, Mapping) else {}


def number(row: Any, value: str, low: str, high: str) -> Number:
    """Return the number of a row (a mapping of columns)."""
    return Number(value=float(row[value]), low=float(row[low]), high=float(row[high]))


def quantity(evidence: Evidence) -> Mapping[str, Any]:
    """Return the explained quantity as the manifest states it."""
    return as_mapping(evidence.manifest.get("quantity"))


def perturbation(said: Mapping[str, Any]) -> object:
    """Return which Shapley values a quantity, or options, have; those that do not say have interventional ones."""
    return said.get("feature_perturbation", "interventional")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What the importance table says of one feature for one output."""

    share: Number
    size: float
    error: float
    correlation: float

    @property
    def zero(self) -> bool:
        """Whether every attribution is zero, up to the rounding of sums."""
        return self.size == 0 or self.share.value <= ZERO_SHARE


Effects = Mapping[str, Mapping[str, Effect]]
"""Output to feature to effect, in the order of the table."""
_NUMBERS = ("mean_abs_shap", "share", "share_ci_low", "share_ci_high", "value_correlation")


def effects(evidence: Evidence) -> Effects | Lacking:
    """Return shares by output and feature; those of estimated attributions allow for the sampling error too."""
    return effects_of(evidence.tables.get("importance"), why=_why(evidence, "importance"))


def effects_of(found: pd.DataFrame | None, *, why: str = "") -> Effects | Lacking:
    """Return `effects` of any table of importance."""
    estimated = found is not None and "mean_standard_error" in found.columns
    numbers = (*_NUMBERS, *(("mean_standard_error",) if estimated else ()))
    frame = frame_of(found, "importance", text=("output", "feature"), numbers=numbers, why=why)
    if isinstance(frame, Lacking):
        return frame
    if frame.duplicated(["output", "feature"]).any():
        return Lacking(reason="the table `importance` has a feature twice")
    parts = {str(name): part for name, part in frame.groupby("output", sort=False)}
    contradiction = next(filter(None, map(_contradiction, parts.values())), None)
    if contradiction is not None:
        return Lacking(reason=f"the table `importance` contradicts itself: {contradiction}")
    return {name: dict(_of_output(part)) for name, part in parts.items()}


def _contradiction(part: pd.DataFrame) -> str | None:
    """Say which share is not that of its size in the sum: the caps would be held against another number."""
    size, share = part["mean_abs_shap"].to_numpy(), part["share"].to_numpy()
    total = size.sum()
    if (size < 0).any():
        return f"{named(part['feature'].iloc[int(np.argmax(size < 0))])} has a negative mean |SHAP|"
    if not (math.isfinite(total) and total > 0):
        return None
    off = np.abs(share - size / total) > SHARE_TOLERANCE
    if not off.any():
        return None
    return f"the share of {named(part['feature'].iloc[int(np.argmax(off))])} is not its part of the sum of mean |SHAP|"


def _of_output(part: pd.DataFrame) -> Iterator[tuple[str, Effect]]:
    total = float(part["mean_abs_shap"].sum(skipna=False))
    defined = math.isfinite(total) and total > 0
    errors = part.get("mean_standard_error")
    noise = 0.0 if errors is None else float(errors.sum(skipna=False))
    for row in part.to_dict("records"):
        size, error = float(row["mean_abs_shap"]), float(row.get("mean_standard_error", 0.0))
        share = number(row, "share", "share_ci_low", "share_ci_high") if defined else Number(value=math.nan)
        yield (
            str(row["feature"]),
            Effect(
                share=_widened(share, error=error, others=noise - error, total=total),
                size=size,
                error=error,
                correlation=float(row["value_correlation"]),
            ),
        )


def _widened(share: Number, *, error: float, others: float, total: float) -> Number:
    """Widen a share by the sampling error of estimated attributions.

    A mean of |value| is off by at most the mean |error|, which is below the mean standard error.
    """
    if error == others == 0 or not math.isfinite(share.value):
        return share
    reach = (error * (1 - share.value) + others * share.value) / total
    return Number(value=share.value, low=max(0.0, share.low - reach), high=min(1.0, share.high + reach))


def outputs(effects: Effects, wanted: str | None) -> tuple[str, ...] | Lacking:
    """Return the outputs that an assertion means: the named one, or every one but their mean."""
    known = [name for name in effects if name != AGGREGATE]
    if wanted is None:
        return tuple(known)
    if wanted in effects:
        return (wanted,)
    return Lacking(reason=f"there is no output `{wanted}`; {nearest(wanted, known)}")


def features(evidence: Evidence, effects: Effects) -> tuple[str, ...]:
    """Return the model's inputs: those of the data, and any further one in the table."""
    listed = as_mapping(evidence.manifest.get("data")).get("features")
    declared = [str(f) for f in listed] if isinstance(listed, list | tuple) else []
    return tuple(dict.fromkeys([*declared, *(f for of in effects.values() for f in of)]))
