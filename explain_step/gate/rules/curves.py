"""Assertions on the direction of effects: rank correlation, whole curve, sign of a level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pandas as pd

from explain_step.gate.evidence import Evidence
from explain_step.gate.naming import named, nearest
from explain_step.gate.policy import Policy
from explain_step.gate.rules.base import Number, Rule, amount, found, limit, of_snapshot, quantile
from explain_step.gate.rules.features import Asked, judged
from explain_step.gate.rules.tables import Lacking, as_mapping, frame_of, number, quantity, table
from explain_step.types import Finding, Verdict

LEVEL = 0.95
CURVES_USED = ("ale", "shap")
"""The first that is there: accumulated local effects leave correlated columns out of a column's curve."""
LONGEST = 200
"""Points of a curve; a table with more was not written by this package."""


def _direction(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    asked = [a for a in policy.assertions if a.direction is not None]
    yield from judged("GATE033", evidence, asked, judge=_judge_direction, what="expects no direction")


def _judge_direction(asked: Asked) -> Iterator[Finding]:
    wanted = str(asked.assertion.direction)
    for feature in asked.features:
        unused = _unused("GATE033", asked, feature)
        if unused is not None:
            yield unused
            continue
        effect = asked.effect(feature)
        rho = math.nan if effect is None else effect.correlation
        yield _signed(asked, feature, _correlation(rho, _rows(asked.evidence, feature)), wanted=wanted)


def _signed(asked: Asked, feature: str, rho: Number, *, wanted: str) -> Finding:
    facts = {"feature": feature, "output": asked.output, "direction": wanted, **rho.facts()}
    if not math.isfinite(rho.value):
        message = (
            f"{named(feature)} should be {wanted}{asked.of}, and its attribution has no rank correlation with "
            f"its value (it is not numeric, or constant); assert its levels instead"
        )
        return found("GATE033", "undecided", message, **facts)
    sign = 1 if wanted == "increasing" else -1
    message = (
        f"the attribution of {named(feature)}{asked.of} has the rank correlation {rho.text()} with its value; "
        f"{wanted} is expected"
    )
    return found("GATE033", _beyond_zero(rho, sign=sign), message, **facts)


def _beyond_zero(value: Number, *, sign: int) -> Verdict:
    """Return whether an interval lies on the wanted side of zero."""
    if not (math.isfinite(value.value) and value.bounded):
        return "undecided"
    ends = sorted(sign * v for v in (value.value, value.low, value.high))
    if ends[0] > 0:
        return "pass"
    return "fail" if ends[-1] <= 0 else "undecided"


def _correlation(rho: float, rows: int) -> Number:
    """Return Spearman's correlation with its interval (Bonett and Wright 2000, doi:10.1007/BF02294183)."""
    if not math.isfinite(rho) or abs(rho) > 1 + 1e-9 or rows < 4:
        return Number(value=math.nan)
    z = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, rho)))
    reach = quantile(0.5 + LEVEL / 2) * math.sqrt((1 + rho**2 / 2) / (rows - 3))
    return Number(value=rho, low=math.tanh(z - reach), high=math.tanh(z + reach))


def _rows(evidence: Evidence, feature: str) -> int:
    """Return the explained rows that have a value of the feature, at least."""
    rows = quantity(evidence).get("rows")
    columns = as_mapping(evidence.manifest.get("data")).get("columns")
    entries = [as_mapping(c) for c in columns] if isinstance(columns, list | tuple) else []
    missing = next((e.get("missing") for e in entries if e.get("name") == feature), 0)
    known = type(rows) is int and type(missing) is int
    return max(0, rows - missing) if known else 0  # type: ignore[operator]


def _unused(code: str, asked: Asked, feature: str) -> Finding | None:
    effect = asked.effect(feature)
    if effect is None or not effect.zero:
        return None
    message = f"every attribution to {named(feature)} is zero{asked.of}: it has no direction"
    return found(code, "not_applicable", message, feature=feature, output=asked.output)


def _monotone(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    asked = [a for a in policy.assertions if a.monotone is not None]
    yield from judged("GATE034", evidence, asked, judge=_judge_monotone, what="expects no monotone effect")


def _judge_monotone(asked: Asked) -> Iterator[Finding]:
    for feature in asked.features:
        facts = {"feature": feature, "output": asked.output, "monotone": asked.assertion.monotone}
        curve = _points(asked, feature)
        unused = _unused("GATE034", asked, feature)
        if unused is not None:
            yield unused
        elif isinstance(curve, Lacking):
            yield found("GATE034", "fail", curve.reason, **facts)
        else:
            yield _judge_curve(asked, feature, curve, facts=facts)


def _points(asked: Asked, feature: str) -> tuple[str, list[tuple[float, Number]]] | Lacking:
    """Return which curve a feature has, and its points in the order of its values."""
    frame = _curves(asked, feature, text=("output", "feature", "curve"))
    if isinstance(frame, Lacking):
        return frame
    for curve in CURVES_USED:
        rows = frame[(frame["curve"] == curve) & frame["x"].notna() & frame["value"].notna()]
        rows = rows.sort_values("x", kind="stable").head(LONGEST)
        if len(rows):
            records = rows.to_dict("records")
            return curve, [(float(r["x"]), number(r, "value", "ci_low", "ci_high")) for r in records]
    return Lacking(reason=f"the effect curve of {named(feature)}{asked.of} has no points")


def _curves(asked: Asked, feature: str, *, text: tuple[str, ...]) -> pd.DataFrame | Lacking:
    numbers = ("x", "value", "ci_low", "ci_high")
    raw = asked.evidence.tables.get("dependence")
    if raw is None or isinstance(frame_of(raw.head(1), "dependence", text=text, numbers=numbers), Lacking):
        return table(asked.evidence, "dependence", text=text, numbers=numbers)
    own = raw[(raw["feature"] == feature) & (raw["output"] == asked.output) & raw["curve"].isin(CURVES_USED)]
    frame = frame_of(own, "dependence", text=text, numbers=numbers)
    if isinstance(frame, Lacking):
        why = (
            f"{named(feature)} has no effect curve{asked.of}; only leading features have one: explain with a "
            f"larger top_features"
        )
        return Lacking(reason=why)
    return frame


def _judge_curve(
    asked: Asked, feature: str, curve: tuple[str, list[tuple[float, Number]]], *, facts: dict[str, Any]
) -> Finding:
    name, points = curve
    tolerance, wanted = asked.assertion.tolerance, str(asked.assertion.monotone)
    if len(points) < 2 or _unordered(asked, feature):
        message = f"{named(feature)} has no order{asked.of}: its effect curve cannot be {wanted}"
        return found("GATE034", "undecided", message, **facts)
    numbers = [n for _, n in points]
    span = max(n.value for n in numbers) - min(n.value for n in numbers)
    verdict, at, reversal = _reversal(
        numbers, sign=1 if wanted == "increasing" else -1, most=tolerance * span
    )
    turn = "fall" if wanted == "increasing" else "rise"
    words = {"pass": "is", "fail": "is not", "undecided": "may not be"}[verdict]
    message = (
        f"the {name} curve of {named(feature)}{asked.of} {words} {wanted}: its largest {turn}, from "
        f"{amount(points[at[0]][0])} to {amount(points[at[1]][0])}, is {reversal.text()}; at most "
        f"{amount(tolerance * span)} ({limit(tolerance, percent=True)} of its range) is accepted"
    )
    more: dict[str, Any] = {
        "curve": name,
        "range": span,
        "tolerance": tolerance,
        "between": [points[i][0] for i in at],
    }
    more |= reversal.facts()
    return found("GATE034", verdict, message, **facts, **more)


def _unordered(asked: Asked, feature: str) -> bool:
    """Return whether the levels of a categorical column have no order, as the table's notes say."""
    noted = as_mapping(as_mapping(asked.evidence.manifest.get("tables")).get("dependence"))
    kinds = as_mapping(as_mapping(noted.get("meta")).get("features"))
    return as_mapping(kinds.get(feature)).get("ordered") is False


def _reversal(points: list[Number], *, sign: int, most: float) -> tuple[Verdict, tuple[int, int], Number]:
    """Return the verdict on the largest reversal of a curve, where it is, and how large.

    Each pair of points is a difference of two estimates. That no reversal is too large must hold for each
    pair (plain intervals); that one is too large was searched for among all pairs, so there the intervals
    are wider (Bonferroni).
    """
    pairs = list(combinations(range(len(points)), 2))
    wider = quantile(1 - (1 - LEVEL) / 2 / len(pairs)) / quantile(0.5 + LEVEL / 2)
    falls = [points[i].minus(points[j]) if sign > 0 else points[j].minus(points[i]) for i, j in pairs]
    if not all(fall.bounded for fall in falls):
        at = next(i for i, fall in enumerate(falls) if not fall.bounded)
        return "undecided", pairs[at], falls[at]
    sure = [fall.value - wider * (fall.value - fall.low) for fall in falls]
    largest = max(range(len(falls)), key=lambda i: falls[i].high)
    surest = max(range(len(falls)), key=lambda i: sure[i])
    if sure[surest] > most:
        return "fail", pairs[surest], falls[surest]
    verdict: Verdict = "pass" if falls[largest].high <= most else "undecided"
    return verdict, pairs[largest], falls[largest]


def _levels(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    asked = [a for a in policy.assertions if a.levels]
    yield from judged("GATE035", evidence, asked, judge=_judge_levels, what="expects no sign of a level")


def _judge_levels(asked: Asked) -> Iterator[Finding]:
    for feature in asked.features:
        unused = _unused("GATE035", asked, feature)
        frame = _curves(asked, feature, text=("output", "feature", "curve", "level"))
        if unused is not None:
            yield unused
        elif isinstance(frame, Lacking):
            yield found("GATE035", "fail", frame.reason, feature=feature, output=asked.output)
        else:
            rows = frame[(frame["curve"] == "shap") & frame["level"].notna()]
            for level, wanted in asked.assertion.levels.items():
                yield _judge_level(asked, feature, rows, level=level, wanted=wanted)


def _judge_level(asked: Asked, feature: str, rows: pd.DataFrame, *, level: str, wanted: str) -> Finding:
    facts: dict[str, Any] = {"feature": feature, "output": asked.output, "level": level, "sign": wanted}
    own = rows[rows["level"] == level]
    if len(own) != 1:
        known = nearest(level, list(dict.fromkeys(rows["level"])))
        message = f"{named(feature)} has no level {named(level)} that is shown{asked.of}; {known}"
        return found("GATE035", "fail", message, **facts)
    effect = number(own.to_dict("records")[0], "value", "ci_low", "ci_high")
    message = (
        f"rows with {named(feature)} = {named(level)} have the mean attribution {effect.text()}{asked.of}; "
        f"a {wanted} one is expected"
    )
    verdict = _beyond_zero(effect, sign=1 if wanted == "positive" else -1)
    return found("GATE035", verdict, message, **facts, **effect.facts())


CURVES = (
    Rule(
        code="GATE033",
        title="Effects have the expected direction",
        check=of_snapshot("GATE033", _direction),
    ),
    Rule(code="GATE034", title="Effect curves are monotone", check=of_snapshot("GATE034", _monotone)),
    Rule(code="GATE035", title="Levels have the expected sign", check=of_snapshot("GATE035", _levels)),
)
