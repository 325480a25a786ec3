"""Assertions on features: which must not be used, and how much of the importance one may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from explain_step.gate.evidence import Evidence
from explain_step.gate.naming import folded, matches, named, nearest, select
from explain_step.gate.policy import Assertion, Policy
from explain_step.gate.rules.base import Number, Rule, condensed, found, limit, of_snapshot
from explain_step.gate.rules.tables import Effect, Effects, Lacking, effects, features, outputs
from explain_step.types import Finding, Verdict

Judge = Callable[["Asked"], Iterator[Finding]]


class Asked:
    """One assertion on one output: its features, and what the table of importance says of them."""

    def __init__(
        self,
        evidence: Evidence,
        assertion: Assertion,
        *,
        output: str,
        known: Effects,
        chosen: Sequence[str],
    ) -> None:
        self.evidence, self.assertion, self.output = evidence, assertion, output
        self.effects, self.features = known[output], tuple(chosen)
        self.of = f" for the output {named(output)}" if len(known) > 1 else ""

    def effect(self, feature: str) -> Effect | None:
        """Return what the table says of a feature; None where it leaves it out."""
        return self.effects.get(feature)


def judged(
    code: str,
    evidence: Evidence,
    assertions: Sequence[Assertion],
    *,
    judge: Judge,
    what: str,
    absent: Verdict = "fail",
) -> Iterator[Finding]:
    """Yield findings of assertions: unknown outputs and features first, then what ``judge`` says.

    ``absent`` is the verdict on a feature that the model does not have.
    """
    if not assertions:
        yield found(code, "not_applicable", f"the policy {what}")
        return
    known = effects(evidence)
    if isinstance(known, Lacking):
        yield found(code, "fail", known.reason)
        return
    listed: list[Finding] = []
    for assertion in assertions:
        listed.extend(_one(code, evidence, assertion, known=known, judge=judge, absent=absent))
    yield from condensed(listed)


def _one(
    code: str,
    evidence: Evidence,
    assertion: Assertion,
    *,
    known: Effects,
    judge: Judge,
    absent: Verdict,
) -> Iterator[Finding]:
    inputs = features(evidence, known)
    chosen = select(assertion.features, inputs)
    for name in chosen.unknown:
        message = f"the model has no feature {named(name)}; {nearest(name, inputs)}"
        yield found(code, absent, message, feature=name)
    for pattern in chosen.unmatched:
        verdict: Verdict = "pass" if absent == "pass" else "not_applicable"
        yield found(code, verdict, f"no feature of the model matches {named(pattern)}", pattern=pattern)
    for name, other in _spelled_otherwise(assertion.features, inputs, chosen.found):
        message = (
            f"{named(other)} is {named(name)} but for its spelling, and the assertion does not mean it: name it in the "
            "policy too, or rename the column"
        )
        yield found(code, "undecided", message, feature=other, named=name)
    meant = outputs(known, assertion.output)
    if isinstance(meant, Lacking):
        yield found(code, "fail", meant.reason, output=assertion.output)
        return
    if not meant:
        yield found(code, "fail", "the table `importance` has no output")
    for output in meant if chosen.found else ():
        yield from judge(Asked(evidence, assertion, output=output, known=known, chosen=chosen.found))


def _spelled_otherwise(
    wanted: Sequence[str], inputs: Sequence[str], chosen: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield columns that an assertion misses only by case, accents, width or unseen signs: a renamed column."""
    for other in inputs:
        if other not in chosen:
            like = next((name for name in wanted if _is_like(other, name, literal=name in inputs)), None)
            if like is not None:
                yield like, other


def _is_like(other: str, name: str, *, literal: bool) -> bool:
    return folded(other) == folded(name) if literal else matches(other, (name,))


def _forbidden(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    asked = [a for a in policy.assertions if a.forbidden]
    yield from judged(
        "GATE030", evidence, asked, judge=_judge_forbidden, what="forbids no feature", absent="pass"
    )


def _judge_forbidden(asked: Asked) -> Iterator[Finding]:
    for feature in asked.features:
        effect = asked.effect(feature)
        facts: dict[str, Any] = {"feature": feature, "output": asked.output}
        if effect is None or not math.isfinite(effect.size) or not math.isfinite(effect.error):
            message = f"the importance of the forbidden feature {named(feature)}{asked.of} is not known"
            yield found("GATE030", "undecided", message, **facts)
            continue
        facts |= {"mean_abs_shap": effect.size, "standard_error": effect.error}
        share = effect.share.text(percent=True)
        if effect.zero:
            message = f"{named(feature)} is an input, and every attribution to it is zero{asked.of}"
            yield found("GATE030", "pass", message, **facts)
        else:
            verdict: Verdict = "fail" if effect.size > effect.error else "undecided"
            message = f"{named(feature)} is forbidden and has {share} of the importance{asked.of}"
            yield found("GATE030", verdict, message, **facts)


def _caps(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    asked = [a for a in policy.assertions if a.max_share is not None]
    yield from judged("GATE031", evidence, asked, judge=_judge_cap, what="caps no feature")


def _judge_cap(asked: Asked) -> Iterator[Finding]:
    most = asked.assertion.max_share
    shares = {f: _share(asked, f) for f in asked.features}
    for feature in sorted(shares, key=lambda f: -shares[f].value if math.isfinite(shares[f].value) else 0.0):
        share = shares[feature]
        facts = {"feature": feature, "output": asked.output, **share.facts(), "max_share": most}
        yield found("GATE031", share.verdict(most=most), _has(named(feature), share, asked, most), **facts)


def _share(asked: Asked, feature: str) -> Number:
    effect = asked.effect(feature)
    return Number(value=math.nan) if effect is None else effect.share


def _has(who: str, share: Number, asked: Asked, most: Any, *, verb: str = "has") -> str:
    allowed = f"at most {limit(most, percent=True)} is allowed"
    if not math.isfinite(share.value):
        return f"the share of {who} in the importance{asked.of} is not defined; {allowed}"
    return f"{who} {verb} {share.text(percent=True)} of the importance{asked.of}; {allowed}"


def _totals(evidence: Evidence, policy: Policy) -> Iterator[Finding]:
    asked = [a for a in policy.assertions if a.max_total_share is not None]
    yield from judged("GATE032", evidence, asked, judge=_judge_total, what="caps no set of features")


def _judge_total(asked: Asked) -> Iterator[Finding]:
    most, total = asked.assertion.max_total_share, _total(asked)
    who = ", ".join(named(f) for f in asked.features[:5]) + (" …" if len(asked.features) > 5 else "")
    verb = "together have" if len(asked.features) > 1 else "has"
    facts = {"features": asked.features, "output": asked.output, **total.facts(), "max_total_share": most}
    yield found("GATE032", total.verdict(most=most), _has(who, total, asked, most, verb=verb), **facts)


def _total(asked: Asked) -> Number:
    """Return the share of a set of features.

    The ends of an interval of a sum are at most the sums of the ends, however the parts hang together; the
    other features' shares, which make up the rest of one, give the same bounds from the other side.
    """
    inside = [_share(asked, f) for f in asked.features]
    outside = [e.share for f, e in asked.effects.items() if f not in asked.features]
    low, high = math.fsum(s.low for s in inside), math.fsum(s.high for s in inside)
    if all(s.bounded for s in outside):
        low = max(low, 1 - math.fsum(s.high for s in outside))
        high = min(high, 1 - math.fsum(s.low for s in outside))
    value = math.fsum(s.value for s in inside)
    return Number(value=min(value, 1.0), low=min(low, value), high=min(1.0, max(high, value)))


FEATURES = (
    Rule(code="GATE030", title="Forbidden features are not used", check=of_snapshot("GATE030", _forbidden)),
    Rule(code="GATE031", title="No feature has too large a share", check=of_snapshot("GATE031", _caps)),
    Rule(
        code="GATE032",
        title="No set of features has too large a share",
        check=of_snapshot("GATE032", _totals),
    ),
)
