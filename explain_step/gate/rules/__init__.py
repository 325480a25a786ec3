"""The rules of the gate, in the order of their codes. A new rule is a function and an entry here."""

from __future__ import annotations

from explain_step.gate.rules.base import Rule
from explain_step.gate.rules.presence import PRESENCE

RULES: tuple[Rule, ...] = (*PRESENCE,)

__all__ = ["RULES", "Rule"]
