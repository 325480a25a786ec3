"""The gate: evidence and a policy to a decision. Nothing here reads a file or a server but the policy itself."""

from __future__ import annotations

from explain_step.gate.decision import BreakGlassUse, GateDecision, check_break_glass, decide
from explain_step.gate.evidence import Evidence, Reference, Request, Review, SignatureFound
from explain_step.gate.naming import person
from explain_step.gate.policy import DEFAULT, Policy, folded, load_policy, matches
from explain_step.gate.report import junit, table
from explain_step.gate.rules import INTEGRITY, RULES, Rule

__all__ = [
    "DEFAULT",
    "INTEGRITY",
    "RULES",
    "BreakGlassUse",
    "Evidence",
    "GateDecision",
    "Policy",
    "Reference",
    "Request",
    "Review",
    "Rule",
    "SignatureFound",
    "check_break_glass",
    "decide",
    "folded",
    "junit",
    "load_policy",
    "matches",
    "person",
    "table",
]
