"""The policy: what a model version has to prove before it may be promoted. Parsed strictly, frozen, hashed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from explain_step.canonical import canonical_json
from explain_step.errors import InvalidInput
from explain_step.gate.naming import folded, matches
from explain_step.gate.problems import describe
from explain_step.gate.reading import as_written, check_plain, read_mapping
from explain_step.gate.schema import (
    SECTIONS,
    Assertion,
    Bound,
    BreakGlass,
    Drift,
    Many,
    Protected,
    Require,
    Reviews,
    SectionName,
    Segments,
    Signature,
    Strict,
    Waiver,
)
from explain_step.hashes import sha256_bytes

__all__ = [
    "DEFAULT",
    "SECTIONS",
    "Assertion",
    "Bound",
    "BreakGlass",
    "Drift",
    "Policy",
    "Protected",
    "Require",
    "Reviews",
    "SectionName",
    "Segments",
    "Signature",
    "Waiver",
    "folded",
    "load_policy",
    "matches",
]


class Policy(Strict):
    """A promotion policy; `load_policy` reads one from YAML. Without a file, these defaults hold.

    ``max_waiver_days``: a waiver whose last day is further ahead does not hold; an exemption for good is a change of
    the policy itself.

    Examples
    --------
    >>> Policy.parse({"version": 1, "protected": {"aliases": "live"}}).protected.aliases
    ('live',)
    """

    version: Literal[1]
    name: str = Field(default="policy", pattern=r"\S")
    protected: Protected = Field(default_factory=Protected)
    require: Require = Field(default_factory=Require)
    scores: Many[Bound] = ()
    performance: Many[Bound] = ()
    assertions: Many[Assertion] = ()
    segments: Segments = Field(default_factory=Segments)
    drift: Drift | None = None
    reviews: Reviews = Field(default_factory=Reviews)
    waivers: Many[Waiver] = ()
    max_waiver_days: int = Field(default=366, ge=1, le=3660)
    break_glass: BreakGlass = Field(default_factory=BreakGlass)

    @field_validator("version", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if type(value) is not int or value != 1:
            msg = f"must be 1 (the schema of this policy), got {as_written(value)}"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _metrics_have_no_variant(self) -> Self:
        for bound in self.performance:
            if bound.variant is not None:
                msg = f"must give no variant under performance: the metric {bound.name!r} has none"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _drift_is_from_a_protected_alias(self) -> Self:
        if self.drift is not None and not matches(self.drift.alias, self.protected.aliases):
            msg = (
                f"must have the alias {self.drift.alias!r} of drift among protected.aliases: anybody could move "
                "another one to the candidate first"
            )
            raise ValueError(msg)
        return self

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Policy:
        """Validate a mapping; unknown keys are refused with a suggestion.

        Raises
        ------
        InvalidInput
            The message names the place in the policy, the rule and the value.
        """
        check_plain(content)
        try:
            return cls.model_validate(dict(content))
        except ValidationError as error:
            raise InvalidInput(describe(error, schema=cls)) from error

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the whole policy, defaults included."""
        return sha256_bytes(canonical_json(self.model_dump(mode="json")))


DEFAULT = Policy(version=1, name="built-in default")


def load_policy(source: Policy | Mapping[str, Any] | str | Path | None) -> Policy:
    """Return the policy of a YAML or JSON file, a mapping, or the built-in default.

    Raises
    ------
    InvalidInput
        There is no such file, it is not YAML, or it breaks the schema.
    """
    if source is None:
        return DEFAULT
    if isinstance(source, Policy):
        return source
    if isinstance(source, Mapping):
        return Policy.parse(source)
    if not isinstance(source, str | Path):
        msg = f"Argument policy must be a file, a mapping or a Policy, got {type(source).__name__}."
        raise InvalidInput(msg)
    return Policy.parse(read_mapping(Path(source)))
