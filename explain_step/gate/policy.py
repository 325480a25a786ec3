"""The policy: what a model version has to prove before it may be promoted. Parsed strictly, frozen, hashed."""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from explain_step.canonical import canonical_json
from explain_step.digests import sha256_bytes
from explain_step.errors import InvalidInput

SectionName = Literal["importance", "dependence", "segments", "examples"]
SECTIONS: tuple[SectionName, ...] = ("importance", "dependence", "segments", "examples")


def folded(name: str) -> str:
    """Return a name as the loosest database collation compares it: no case, no accents, no width.

    ``Champion``, ``CHAMPION`` and ``chámpion`` name one alias on some servers, so they are protected alike.

    Examples
    --------
    >>> folded("Chámpion") == folded("CHAMPION")
    True
    """
    plain = unicodedata.normalize("NFKD", name.strip())
    return "".join(c for c in plain if not unicodedata.combining(c)).casefold()


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a name matches one of the shell patterns (``prod.*``), both folded."""
    return any(fnmatchcase(folded(name), folded(pattern)) for pattern in patterns)


class _Strict(BaseModel):
    """Frozen, and nothing unknown is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _one_is_a_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Protected(_Strict):
    """Where promotion is guarded. Names are compared without case, accents and width; patterns are allowed.

    ``registered_models``: every version in a model of such a name needs evidence, whatever its alias.
    """

    aliases: tuple[str, ...] = ("champion",)
    stages: tuple[str, ...] = ("Production",)
    registered_models: tuple[str, ...] = ()

    _tuples = field_validator("aliases", "stages", "registered_models", mode="before")(_one_is_a_tuple)


class Signature(_Strict):
    """Who must have signed the manifest: ``keys`` are ids of allowed keys; empty means every known key."""

    required: bool = False
    keys: tuple[str, ...] = ()

    _tuples = field_validator("keys", mode="before")(_one_is_a_tuple)


class Require(_Strict):
    """What every snapshot needs, whatever it says.

    ``status``: the accepted ones. ``binding="verified"``: the logged model was asked and gave the explained
    predictions. ``max_age_days``: since the snapshot was made. ``min_rows``: explained rows.
    """

    status: tuple[Literal["complete", "degraded"], ...] = ("complete", "degraded")
    sections: tuple[SectionName, ...] = SECTIONS
    binding: Literal["verified", "declared"] = "verified"
    exact: bool = False
    max_age_days: float | None = Field(default=None, gt=0)
    min_rows: int = Field(default=2, ge=2)
    signature: Signature = Field(default_factory=Signature)

    _tuples = field_validator("status", "sections", mode="before")(_one_is_a_tuple)


class Bound(_Strict):
    """A bound on a score or a performance metric: the whole interval must lie inside.

    An interval that straddles the bound leaves the rule undecided.
    """

    name: str
    variant: str | None = None
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.min is None and self.max is None:
            msg = f"the bound on {self.name!r} needs min or max"
            raise ValueError(msg)
        return self


class Assertion(_Strict):
    """What the explanation itself must say about features.

    Attributes
    ----------
    features : tuple of str
        Raw input columns, or patterns.
    direction : {"increasing", "decreasing"}, optional
        The attribution rises (falls) with the value of each of these numeric columns.
    forbidden : bool
        The model must not use them: every attribution is zero.
    max_share : float, optional
        Largest share of the sum of mean |SHAP| of each of them (a cap against leaks: ``features: ["*"]``).
    max_total_share : float, optional
        Largest share of all of them together (sensitive columns and their proxies).
    output : str, optional
        The explained output meant; default every output.
    """

    features: tuple[str, ...] = Field(min_length=1)
    direction: Literal["increasing", "decreasing"] | None = None
    forbidden: bool = False
    max_share: float | None = Field(default=None, ge=0, le=1)
    max_total_share: float | None = Field(default=None, ge=0, le=1)
    output: str | None = None

    _tuples = field_validator("features", mode="before")(_one_is_a_tuple)

    @model_validator(mode="after")
    def _some_assertion(self) -> Self:
        if not self.forbidden and (self.direction, self.max_share, self.max_total_share) == (None,) * 3:
            msg = f"the assertion on {list(self.features)} needs direction, forbidden, max_share or max_total_share"
            raise ValueError(msg)
        return self


class Segments(_Strict):
    """Which segments must be reported, and how far they may lie apart.

    ``max_performance_gap``: largest difference of a segment's metric from the rest of the rows.
    ``max_importance_gap``: largest difference of a feature's mean |SHAP| from the rest, as a fraction of the
    feature's overall mean |SHAP|. ``max_rate_gap``: largest gap between levels, by rate (``selection_rate``,
    ``tpr``, ``fpr``).
    """

    required: tuple[str, ...] = ()
    max_performance_gap: float | None = Field(default=None, ge=0)
    max_importance_gap: float | None = Field(default=None, ge=0)
    max_rate_gap: dict[str, float] = Field(default_factory=dict)

    _tuples = field_validator("required", mode="before")(_one_is_a_tuple)


class Drift(_Strict):
    """How far a candidate may be from the version that an alias points to now.

    ``max_share_change``: of any feature's share of the sum of mean |SHAP|; both intervals count, and unlike
    quantities are never compared (the rule is then undecided).
    """

    alias: str = "champion"
    max_share_change: float = Field(gt=0, le=1)


class Reviews(_Strict):
    """Approvals bound to the snapshot, by people other than the author of the run.

    ``authenticated``: only reviews whose reviewer the server itself has authenticated count.
    """

    approvals: int = Field(default=0, ge=0)
    reviewers: tuple[str, ...] = ()
    authenticated: bool = False

    _tuples = field_validator("reviewers", mode="before")(_one_is_a_tuple)


class Waiver(_Strict):
    """Rules that need not hold for one version, by whom, why and until when (the end of that day, UTC)."""

    rules: tuple[str, ...] = Field(min_length=1)
    registered_model: str
    version: str
    owner: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: date

    _tuples = field_validator("rules", mode="before")(_one_is_a_tuple)

    @field_validator("version", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value

    @property
    def ends(self) -> datetime:
        """The moment after which it does not hold."""
        return datetime.combine(self.expires, time.max, tzinfo=UTC)


class BreakGlass(_Strict):
    """Whether a named person may promote against the rules, for how long at most; always logged."""

    allowed: bool = False
    owners: tuple[str, ...] = ()
    max_hours: float = Field(default=24, gt=0)

    _tuples = field_validator("owners", mode="before")(_one_is_a_tuple)


class Policy(_Strict):
    """A promotion policy; `load_policy` reads one from YAML. Without a file, these defaults hold.

    Examples
    --------
    >>> Policy.parse({"version": 1, "protected": {"aliases": "live"}}).protected.aliases
    ('live',)
    """

    version: Literal[1]
    name: str = "policy"
    protected: Protected = Field(default_factory=Protected)
    require: Require = Field(default_factory=Require)
    scores: tuple[Bound, ...] = ()
    performance: tuple[Bound, ...] = ()
    assertions: tuple[Assertion, ...] = ()
    segments: Segments = Field(default_factory=Segments)
    drift: Drift | None = None
    reviews: Reviews = Field(default_factory=Reviews)
    waivers: tuple[Waiver, ...] = ()
    break_glass: BreakGlass = Field(default_factory=BreakGlass)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Policy:
        """Validate a mapping; unknown keys are refused with a suggestion.

        Raises
        ------
        InvalidInput
            The message names the place in the policy, the rule and the value.
        """
        try:
            return cls.model_validate(dict(content))
        except ValidationError as error:
            raise InvalidInput(_first_problem(error, content)) from error

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
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
        parsed = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_UniqueKeys)
    except OSError as error:
        msg = f"Argument policy must be a readable file; {str(path)!r} is not: {error.strerror}."
        raise InvalidInput(msg) from error
    except (ValueError, yaml.YAMLError) as error:
        msg = f"Argument policy must be a YAML or JSON file; {str(path)!r} is not: {error}"
        raise InvalidInput(msg) from error
    if not isinstance(parsed, dict):
        msg = (
            f"Policy {str(path)!r} must hold a mapping, got {type(parsed).__name__}; start with 'version: 1'."
        )
        raise InvalidInput(msg)
    return Policy.parse(parsed)


class _UniqueKeys(yaml.SafeLoader):
    """YAML without duplicate keys: the second of two bounds would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; refuse a key that is there twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((k for i, k in enumerate(keys) if k in keys[:i]), None)
        if twice is not None:
            problem = f"the key {twice!r} is there twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def _first_problem(error: ValidationError, content: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}."
        return f"Policy key {where!r} is not known; {hint}"
    if where == "version":
        return f"Policy key 'version' must be 1 (the schema of this policy), got {content.get('version')!r}."
    return f"Policy key {where!r} is not valid: {first['msg']}; got {first.get('input')!r}."


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the schema has at a place."""
    model: Any = Policy
    for part in place:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        model = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), model)
    return list(model.model_fields)
