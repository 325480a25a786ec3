"""What a rule is, and how a number with an interval is held against a bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from explain_step.canonical import plain_json
from explain_step.gate.evidence import Evidence
from explain_step.gate.policy import Policy
from explain_step.types import Finding, Verdict

Check = Callable[[Evidence, Policy], Iterable[Finding]]
SHOWN = 20
"""Findings that stand against a version, per rule; the rest is counted in one more."""
_ORDER: tuple[Verdict, ...] = ("fail", "undecided", "pass", "not_applicable")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule of the gate: a code, a title, and a function from evidence and policy to findings.

    The function yields at least one finding; ``not_applicable`` where the policy or the snapshot has nothing
    for it.
    """

    code: str
    title: str
    check: Check


def found(code: str, verdict: Verdict, message: str, /, **evidence: Any) -> Finding:
    """Return a finding whose evidence is strict JSON: a number that is not finite becomes None."""
    return Finding(code=code, verdict=verdict, message=message, evidence=plain_json(evidence))


def of_snapshot(code: str, check: Check) -> Check:
    """Return a check that has nothing to say where no snapshot verifies; GATE002 and GATE003 refuse there."""

    def checked(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
        if evidence.usable:
            yield from check(evidence, policy)
        else:
            yield found(code, "not_applicable", "there is no verified snapshot")

    return checked


def worst(*verdicts: Verdict) -> Verdict:
    """Return the verdict that counts: fail, then undecided, then pass."""
    return min(verdicts, key=_ORDER.index)


def condensed(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield what stands against a version and what does not apply, and of what holds the first with a count."""
    listed = list(findings)
    against = [f for f in listed if f.verdict in ("fail", "undecided")]
    against.sort(key=lambda f: _ORDER.index(f.verdict))
    holds = [f for f in listed if f.verdict == "pass"]
    yield from against[:SHOWN]
    if rest := against[SHOWN:]:
        message = f"{len(rest)} more findings of this rule stand against the version"
        yield found(rest[0].code, worst(*(f.verdict for f in rest)), message, more=len(rest))
    yield from (f for f in listed if f.verdict == "not_applicable")
    if holds:
        others = f" ({len(holds) - 1} more hold)" if len(holds) > 1 else ""
        first = holds[0]
        yield found(first.code, "pass", first.message + others, **dict(first.evidence), held=len(holds))


def at_most(value: float, low: float, high: float, *, bound: float) -> Verdict:
    """Hold an interval against an upper bound: inside, outside, or straddling (``undecided``).

    A value without an interval (both ends NaN) stands for itself; a value that is not finite, one with half an
    interval, and one with an unbounded interval is undecided.

    Examples
    --------
    >>> at_most(0.5, 0.4, 0.55, bound=0.6), at_most(0.5, 0.4, 0.65, bound=0.6), at_most(0.7, 0.65, 0.8, bound=0.6)
    ('pass', 'undecided', 'fail')
    """
    half = math.isfinite(low) != math.isfinite(high)
    if not math.isfinite(value) or half or math.isinf(low) or math.isinf(high):
        return "undecided"
    ends = (value, low, high) if math.isfinite(low) else (value,)
    if max(ends) <= bound:
        return "pass"
    return "fail" if min(ends) > bound else "undecided"


def at_least(value: float, low: float, high: float, *, bound: float) -> Verdict:
    """Hold an interval against a lower bound."""
    return at_most(-value, -high, -low, bound=-bound)


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A number with its 95% interval; NaN where something is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def bounded(self) -> bool:
        """Whether it has an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def size(self) -> Number:
        """Its absolute value: an interval around zero starts at zero."""
        ends = (self.low, self.high)
        if not self.bounded:
            return Number(value=abs(self.value))
        low = 0.0 if self.low <= 0 <= self.high else min(map(abs, ends))
        return Number(value=abs(self.value), low=low, high=max(map(abs, ends)))

    def minus(self, other: Number) -> Number:
        """Return the difference of two independent estimates.

        Each side's distance is the root of the sum of squares of the two distances (Zou and Donner 2008,
        doi:10.1002/sim.3095), an approximation that needs no further assumption on the shape of either.
        """
        down = math.hypot(self.value - self.low, other.high - other.value)
        up = math.hypot(self.high - self.value, other.value - other.low)
        gap = self.value - other.value
        return Number(value=gap, low=gap - down, high=gap + up)

    def verdict(self, *, least: float | None = None, most: float | None = None) -> Verdict:
        """Hold it against bounds; without an interval it is undecided."""
        return self.alone(least=least, most=most) if self.bounded else "undecided"

    def alone(self, *, least: float | None = None, most: float | None = None) -> Verdict:
        """Hold it against bounds; without an interval it stands for itself."""
        verdicts: list[Verdict] = []
        if least is not None:
            verdicts.append(at_least(self.value, self.low, self.high, bound=least))
        if most is not None:
            verdicts.append(at_most(self.value, self.low, self.high, bound=most))
        return worst(*verdicts) if verdicts else "undecided"

    def text(self, *, percent: bool = False) -> str:
        """Return it in words: ``71.3% [68%, 74%]``, ``0.81 [0.74, 0.88]``, ``not defined``."""
        if not math.isfinite(self.value):
            return "not defined"
        shown = amount(self.value, percent=percent)
        if not self.bounded:
            return f"{shown} (no interval)"
        return f"{shown} [{amount(self.low, percent=percent)}, {amount(self.high, percent=percent)}]"

    def facts(self) -> dict[str, float]:
        """Return it for the evidence of a finding."""
        return {"value": self.value, "ci_low": self.low, "ci_high": self.high}


def amount(value: float, *, percent: bool = False) -> str:
    """Return a number with three significant digits, as a percentage where wanted.

    Examples
    --------
    >>> amount(0.7134, percent=True), amount(0.000123456)
    ('71.3%', '0.000123')
    """
    return f"{100 * value:.3g}%" if percent else f"{value:.3g}"


def limit(bound: float, *, percent: bool = False) -> str:
    """Return a bound of the policy as it is written: rounded, ``0.9999`` would read as 1.

    Examples
    --------
    >>> limit(0.9999), limit(0.55, percent=True)
    ('0.9999', '55%')
    """
    return f"{100 * bound:.10g}%" if percent else f"{bound:.10g}"


def quantile(level: float) -> float:
    """Return the standard normal quantile."""
    return NormalDist().inv_cdf(level)
