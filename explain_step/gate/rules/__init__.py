"""The rules of the gate, in the order of their codes. A new rule is a function and an entry here."""

from __future__ import annotations

from explain_step.gate.rules.base import Rule
from explain_step.gate.rules.completeness import COMPLETENESS
from explain_step.gate.rules.curves import CURVES
from explain_step.gate.rules.drift import DRIFT
from explain_step.gate.rules.features import FEATURES
from explain_step.gate.rules.people import PEOPLE
from explain_step.gate.rules.presence import PRESENCE
from explain_step.gate.rules.quality import QUALITY
from explain_step.gate.rules.segments import SEGMENTS

RULES: tuple[Rule, ...] = (
    *PRESENCE,
    *COMPLETENESS,
    *QUALITY,
    *FEATURES,
    *CURVES,
    *SEGMENTS,
    *DRIFT,
    *PEOPLE,
)
INTEGRITY = frozenset(rule.code for rule in PRESENCE)
"""Whether evidence is whole and belongs to the version: no waiver of a policy covers these."""

__all__ = ["INTEGRITY", "RULES", "Rule"]
