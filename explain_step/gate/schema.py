"""The parts of a policy: frozen, strictly typed values. `explain_step.gate.policy` puts them together."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from explain_step.gate.naming import folded, hopeless, is_pattern
from explain_step.types import FeaturePerturbation

SectionName = Literal["importance", "dependence", "segments", "examples"]
SECTIONS: tuple[SectionName, ...] = ("importance", "dependence", "segments", "examples")
STAGES = ("None", "Staging", "Production", "Archived")
"""MLflow knows no others, so that a protected one of another name would protect nothing."""
Rate = Literal["selection_rate", "tpr", "fpr"]
T = TypeVar("T")


def _many(value: Any) -> Any:
    """Take one name for a list of one; a list is a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _matchable(name: str) -> str:
    if hopeless(name):
        msg = f"must be a name or a pattern that can match something, got {name!r}"
        raise ValueError(msg)
    return name


def _stage(name: str) -> str:
    from explain_step.gate.naming import matches, nearest

    if not any(matches(stage, (name,)) for stage in STAGES):
        msg = (
            f"must name stages of MLflow ({', '.join(STAGES)}), there is no {name!r}; {nearest(name, STAGES)}"
        )
        raise ValueError(msg)
    return name


def _version(text: str) -> str:
    if re.fullmatch(r"[1-9][0-9]*", text.strip()) is None:
        msg = f"must be the number of one version, got {text!r}"
        raise ValueError(msg)
    return text


def _day(value: Any) -> Any:
    """Take a day also as text; a moment is refused, because the day's end is what counts."""
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        msg = f"must be a day such as 2026-12-31, got {value!r}"
        raise ValueError(msg) from error


def _number_as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _known_rule(code: str) -> str:
    from explain_step.gate.naming import nearest
    from explain_step.gate.rules import INTEGRITY, RULES

    if code in INTEGRITY:
        msg = f"must not name {code}: whether evidence is whole and belongs to the version cannot be waived"
        raise ValueError(msg)
    codes = [rule.code for rule in RULES if rule.code not in INTEGRITY]
    if code not in codes:
        msg = f"must name rules of the gate, there is no {code!r}; {nearest(code, codes)}"
        raise ValueError(msg)
    return code


Name = Annotated[str, AfterValidator(_matchable)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_many)]
Many = Annotated[tuple[T, ...], BeforeValidator(_many)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Frozen; nothing unknown is accepted, and nothing is converted behind the author's back."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Protected(Strict):
    """Where promotion is guarded. Names are compared without case, accents and width; patterns are allowed.

    ``registered_models``: every version in a model of such a name needs evidence, whatever its alias.
    """

    aliases: Names = ("champion",)
    stages: Annotated[tuple[Annotated[Name, AfterValidator(_stage)], ...], BeforeValidator(_many)] = (
        "Production",
    )
    registered_models: Names = ()


class Signature(Strict):
    """Who must have signed the manifest: ``keys`` are the full ids of the keys that count.

    A signature by a key that nobody listed proves nothing: everybody can make one.
    """

    required: bool = False
    keys: Annotated[tuple[Annotated[str, Field(pattern=r"\S")], ...], BeforeValidator(_many)] = ()

    @model_validator(mode="after")
    def _keys_are_used(self) -> Self:
        if self.keys and not self.required:
            msg = "must have required: true where keys are listed; otherwise no signature is asked for"
            raise ValueError(msg)
        if self.required and not self.keys:
            msg = "must list the ids of the keys that count: a signature by any other key proves nothing"
            raise ValueError(msg)
        return self


class Require(Strict):
    """What every snapshot needs, whatever it says.

    ``status``: the accepted ones. ``binding="verified"``: the logged model was asked and gave the explained
    predictions. ``exact``: no estimated attributions. ``feature_perturbation``: the accepted quantities; bounds on
    shares mean another thing for each. ``max_age_days``: since the snapshot was made.
    ``min_rows``: explained rows.
    """

    status: Annotated[
        tuple[Literal["complete", "degraded"], ...], BeforeValidator(_many), Field(min_length=1)
    ] = ("complete", "degraded")
    sections: Many[SectionName] = SECTIONS
    binding: Literal["verified", "declared"] = "verified"
    exact: bool = False
    feature_perturbation: Annotated[Many[FeaturePerturbation], Field(min_length=1)] = ("interventional",)
    max_age_days: float | None = Field(default=None, gt=0)
    min_rows: int = Field(default=2, ge=2, le=10**12)
    signature: Signature = Field(default_factory=Signature)


class Bound(Strict):
    """A bound on a score or a performance metric: the whole interval must lie inside.

    An interval that straddles the bound leaves the rule undecided. Without ``variant`` every variant of a
    score is held against it, except its random control.
    """

    name: Annotated[str, AfterValidator(_matchable)]
    variant: str | None = None
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.min is None and self.max is None:
            msg = f"must have min or max for {self.name!r}"
            raise ValueError(msg)
        if self.min is not None and self.max is not None and self.min > self.max:
            msg = f"must have min below max for {self.name!r}, got {self.min:g} and {self.max:g}"
            raise ValueError(msg)
        if self.variant is not None and self.variant.startswith("control"):
            msg = f"must not bound {self.variant!r}: it is the random control of {self.name!r}, not the score"
            raise ValueError(msg)
        return self


class Assertion(Strict):
    """What the explanation itself must say about features.

    Attributes
    ----------
    features : tuple of str
        Raw input columns as they are written, or patterns (case counts).
    direction : {"increasing", "decreasing"}, optional
        Expected sign: the attribution rises (falls) with the value of each of these numeric columns, by
        their rank correlation.
    monotone : {"increasing", "decreasing"}, optional
        The whole effect curve rises (falls); a reversal up to ``tolerance`` times its range is accepted.
    tolerance : float
        Fraction of the curve's range.
    levels : mapping of str to {"positive", "negative"}
        Expected sign of the mean attribution of the rows with a level of a categorical column.
    forbidden : bool
        The model must not use them: every attribution is zero.
    max_share : float, optional
        Largest share of the sum of mean |SHAP| of each of them (a cap against leaks: ``features: ["*"]``).
    max_total_share : float, optional
        Largest share of all of them together (sensitive columns and their proxies).
    output : str, optional
        The explained output meant; default every output.
    """

    features: Annotated[tuple[Name, ...], BeforeValidator(_many), Field(min_length=1)]
    direction: Literal["increasing", "decreasing"] | None = None
    monotone: Literal["increasing", "decreasing"] | None = None
    tolerance: float = Field(default=0.1, ge=0, lt=1)
    levels: dict[str, Literal["positive", "negative"]] = Field(default_factory=dict)
    forbidden: bool = False
    max_share: Share | None = None
    max_total_share: Share | None = None
    output: str | None = None

    @model_validator(mode="after")
    def _some_assertion(self) -> Self:
        shape = (self.direction, self.monotone, self.levels or None)
        caps = (self.max_share, self.max_total_share)
        features = ", ".join(self.features[:5])
        if not self.forbidden and (*shape, *caps) == (None,) * 5:
            msg = (
                f"must say something of {features}: direction, monotone, levels, forbidden, max_share or "
                f"max_total_share"
            )
            raise ValueError(msg)
        if self.forbidden and (*shape, *caps) != (None,) * 5:
            msg = f"must say nothing else of {features} when they are forbidden"
            raise ValueError(msg)
        if self.direction and self.monotone and self.direction != self.monotone:
            msg = f"must not expect {features} to be {self.direction} and {self.monotone}"
            raise ValueError(msg)
        return self


class Segments(Strict):
    """Which segments must be reported, and how far they may lie apart.

    ``compared``: the segments whose gaps are bounded, names or patterns; default every reported one.
    ``max_performance_gap``: largest difference of a segment's metric from the rest of the rows.
    ``max_importance_gap``: largest difference of a feature's mean |SHAP| from the rest, as a fraction of the
    feature's overall mean |SHAP|. ``max_rate_gap``: largest gap between levels, by rate (``selection_rate``,
    ``tpr``, ``fpr``). ``allow_withheld``: levels that are too small to be published may be passed over.
    """

    required: Names = ()
    compared: Annotated[tuple[Name, ...], BeforeValidator(_many), Field(min_length=1)] = ("*",)
    max_performance_gap: float | None = Field(default=None, ge=0)
    max_importance_gap: float | None = Field(default=None, ge=0)
    max_rate_gap: dict[Rate, Share] = Field(default_factory=dict)
    allow_withheld: bool = False


class Drift(Strict):
    """How far a candidate may be from the version that an alias points to now.

    The alias has to be a protected one: any other could be moved to the candidate first.

    ``max_share_change``: of any feature's share of the sum of mean |SHAP|; both intervals count, and unlike
    quantities are never compared (the rule is then undecided).
    """

    alias: Name = "champion"
    max_share_change: float = Field(gt=0, le=1)


class Reviews(Strict):
    """Approvals bound to the snapshot, by people other than the author of the run.

    ``reviewers``: whose word counts (names or patterns); empty means everybody's. ``authenticated``: only
    reviews whose reviewer the server itself has authenticated count.
    """

    approvals: int = Field(default=0, ge=0, le=1000)
    reviewers: Names = ()
    authenticated: bool = False

    @model_validator(mode="after")
    def _enough_people(self) -> Self:
        people = {folded(r) for r in self.reviewers}
        if people and not any(is_pattern(r) for r in people) and len(people) < self.approvals:
            msg = f"must list at least as many reviewers as approvals, got {len(people)} and {self.approvals}"
            raise ValueError(msg)
        return self


class Waiver(Strict):
    """Rules that need not hold for one version, by whom, why and until when (the end of that day, UTC)."""

    rules: Annotated[
        tuple[Annotated[str, AfterValidator(_known_rule)], ...], BeforeValidator(_many), Field(min_length=1)
    ]
    registered_model: str = Field(pattern=r"\S")
    version: Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_version)]
    owner: str = Field(pattern=r"\S")
    reason: str = Field(pattern=r"\S")
    expires: Annotated[date, BeforeValidator(_day)]

    @property
    def ends(self) -> datetime:
        """The moment after which it does not hold."""
        return datetime.combine(self.expires, time.max, tzinfo=UTC)

    def state(self, now: datetime, *, max_days: int) -> Literal["current", "past", "too far ahead"]:
        """Tell whether it holds at a moment: until its day ends, where that day is at most ``max_days`` ahead."""
        if now > self.ends:
            return "past"
        return (
            "too far ahead"
            if self.expires > (now.astimezone(UTC) + timedelta(days=max_days)).date()
            else "current"
        )

    def covers(self, name: str, version: str) -> bool:
        """Tell whether it was written for this version: an exemption is for the name as it is written."""
        return self.registered_model.strip() == name and self.version.strip() == version.strip()


class BreakGlass(Strict):
    """Whether a named person may promote against the rules, for how long at most; always logged."""

    allowed: bool = False
    owners: Names = ()
    max_hours: float = Field(default=24, gt=0, le=8784)
