"""What a rule is, and how a number with an interval is held against a bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from explain_step.gate.evidence import Evidence
from explain_step.gate.policy import Policy
from explain_step.types import Finding, Verdict

Check = Callable[[Evidence, Policy], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule of the gate: a code, a title, and a function from evidence and policy to findings.

    The function yields at least one finding; ``not_applicable`` where the policy or the snapshot has nothing
    for it.
    """

    code: str
    title: str
    check: Check


def found(code: str, verdict: Verdict, message: str, **evidence: Any) -> Finding:
    """Return a finding."""
    return Finding(code=code, verdict=verdict, message=message, evidence=evidence)


def at_most(value: float, low: float, high: float, *, bound: float) -> Verdict:
    """Hold an interval against an upper bound: inside, outside, or straddling (``undecided``).

    A value without an interval stands for itself; a missing value is undecided.

    Examples
    --------
    >>> at_most(0.5, 0.4, 0.55, bound=0.6), at_most(0.5, 0.4, 0.65, bound=0.6), at_most(0.7, 0.65, 0.8, bound=0.6)
    ('pass', 'undecided', 'fail')
    """
    if math.isnan(value):
        return "undecided"
    lowest = value if math.isnan(low) else min(low, value)
    highest = value if math.isnan(high) else max(high, value)
    if highest <= bound:
        return "pass"
    return "fail" if lowest > bound else "undecided"


def at_least(value: float, low: float, high: float, *, bound: float) -> Verdict:
    """Hold an interval against a lower bound."""
    return at_most(-value, -high, -low, bound=-bound)
