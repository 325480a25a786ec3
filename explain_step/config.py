"""The options of a step: parsed and validated once, at the edge, then frozen."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from explain_step.errors import InvalidInput
from explain_step.types import FeaturePerturbation
from explain_step.written import parse

SegmentDeclaration = str | tuple[str, ...]
DATA_KEYS = ("background", "sample_weight", "dataset", "purpose")
"""Options that may be data (frames, arrays) in Python, where a config file can only name a path or a column; and what is
said about the data (`explain_step.dataset`) and the purpose, which changes no number."""
DEFAULT = "leave it out for the default"
COLUMNS = ("be a list of column names (text)", "write for instance ['age', 'income']")
RULES: dict[str, tuple[str, str]] = {
    "version": ("be 1, the only version of the config file", DEFAULT),
    "task": ("be 'binary', 'multiclass' or 'regression'", "leave it out to take the model's"),
    "output": ("be 'probability', 'margin' or 'prediction'", DEFAULT),
    "feature_perturbation": (
        "be 'interventional' or 'correlation_dependent' (of linear models in their linear output)",
        DEFAULT,
    ),
    "positive_class": ("be one class label (text, a number or a truth value)", DEFAULT),
    "class_names": ("be a list of texts, one per class", "write for instance ['no', 'yes']"),
    "segments": (
        "be a list of column names, expressions, or lists of these (text)",
        "write for instance ['region', 'age < 30', ['region', 'sex']]",
    ),
    "sensitive": COLUMNS,
    "max_rows": ("be a whole number of rows, at least 1", "leave it out to explain every row"),
    "budget": ("be a finite number of seconds above 0", "write 60, '60s', '5m' or '1h'"),
    "precision": (
        "be a part above 0 and below 1",
        "write for instance 0.05, or leave it out for a fixed number of predictions",
    ),
    "seed": ("be a whole number from 0 to 4294967295", DEFAULT),
    "feature_groups": (
        "map names of groups to lists of column names (text)",
        "write for instance {'debts': ['loan', 'card']}",
    ),
    "feature_labels": (
        "map column names to names for readers (text)",
        "write for instance {'pirat': 'payment to income'}",
    ),
    "redact": COLUMNS,
    "privacy": ("be 'standard' or 'strict'", DEFAULT),
    "metrics": ("be a list of names of metrics (text)", "write for instance ['roc_auc']"),
    "min_segment": ("be a whole number of rows, at least 2", DEFAULT),
    "top_features": ("be a whole number from 1 to 50", DEFAULT),
}
"""The rule of each option and the remedy, for messages."""
LATER = {"feature_perturbation": "interventional"}
"""Options that came after the first snapshots, and their defaults: those have the digests that they always had."""


class Config(BaseModel):
    """Options of `explain_step.explain` and keys of the config file.

    Attributes
    ----------
    task : {"binary", "multiclass", "regression"}, optional
        Taken from the model when not given.
    output : {"probability", "margin", "prediction"}, optional
        The explained quantity. Default: probability for classifiers, prediction otherwise.
    feature_perturbation : {"interventional", "correlation_dependent"}
        What becomes of the columns outside a coalition: replaced by background rows, or, of linear models in their linear
        output, expected from the columns inside by the linear regression of the background rows. Another quantity.
    positive_class : str, int, float or bool, optional
        Class whose probability is explained (binary). Default: the second class of the model.
    class_names : tuple of str, optional
        Names of the classes for readers, in the model's order.
    segments : tuple
        Column names, expressions such as ``"age < 30"``, or lists of these (intersection).
    sensitive : tuple of str
        Columns whose segments are always reported.
    max_rows : int, optional
        Explain at most this many rows (a seeded sample); what was cut is said in the report.
    budget : float, optional
        Seconds for estimated (black-box) work, all stages together. Exact values of forests grown to the end are reckoned
        beforehand, and made of fewer rows where they would take longer; other exact work has no budget.
    precision : float, optional
        Estimated values of more rows, then more draws for each, until half the 95% interval of the mean |value| of
        each of the first ``top_features`` columns is at most this part of the largest mean; ends earlier where the
        budget is spent or all rows are done. Without it the number of predictions is fixed.
    seed : int
        Seed of everything random.
    feature_groups : dict of str to tuple of str
        Groups of raw columns whose attributions are summed as one more view.
    feature_labels : dict of str to str
        Names of columns for readers.
    redact : tuple of str
        Columns whose values are published nowhere.
    privacy : {"standard", "strict"}
        ``strict`` publishes no raw row, and no level, minimum or maximum that fewer than ``min_segment`` rows share.
    metrics : tuple of str
        Performance metrics; the first one is used for permutation importance and segments.
    min_segment : int
        Segments with fewer rows are withheld.
    top_features : int
        Number of features with dependence curves and examples' bars.

    Examples
    --------
    >>> Config.parse({"segments": "afam"}).segments
    ('afam',)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    if not TYPE_CHECKING:  # editors and mypy keep the fields as the signature

        def __init__(self, **options: Any) -> None:
            _check_keys(options)
            try:
                super().__init__(**options)
            except ValidationError as error:
                raise InvalidInput(_message(error)) from error

    version: Literal[1] = 1
    task: Literal["binary", "multiclass", "regression"] | None = None
    output: Literal["probability", "margin", "prediction"] | None = None
    feature_perturbation: FeaturePerturbation = "interventional"
    positive_class: bool | int | float | str | None = None
    class_names: tuple[str, ...] | None = None
    segments: tuple[SegmentDeclaration, ...] = ()
    sensitive: tuple[str, ...] = ()
    max_rows: int | None = Field(default=None, ge=1)
    budget: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    precision: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**32)
    feature_groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    feature_labels: dict[str, str] = Field(default_factory=dict)
    redact: tuple[str, ...] = ()
    privacy: Literal["standard", "strict"] = "standard"
    metrics: tuple[str, ...] = ()
    min_segment: int = Field(default=20, ge=2)
    top_features: int = Field(default=8, ge=1, le=50)

    @field_validator("segments", "sensitive", "redact", "metrics", "class_names", mode="before")
    @classmethod
    def _one_is_a_tuple(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        # a set has another order in each process
        return sorted(value, key=str) if isinstance(value, set | frozenset) else value

    @field_validator("feature_groups", mode="before")
    @classmethod
    def _one_is_a_group(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: (columns,) if isinstance(columns, str) else columns for name, columns in value.items()}

    @field_validator("positive_class", mode="before")
    @classmethod
    def _plain_label(cls, value: Any) -> Any:
        return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value

    @field_validator("max_rows", "budget", "precision", "seed", "min_segment", "top_features", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        if isinstance(value, bool):
            msg = "a truth value is no number"
            raise ValueError(msg)
        return value

    @field_validator("budget", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = value.strip().lower()
        scale = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
        return float(text[:-1]) * scale if scale else float(text)

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Config:
        """Validate ``options``; unknown keys are refused with a suggestion."""
        _check_keys(options)
        return cls(**options)

    def canonical(self) -> dict[str, Any]:
        """Return the options as plain JSON values, for manifest and digest; without `LATER` ones at their defaults."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        return {key: value for key, value in plain.items() if key not in LATER or value != LATER[key]}


def _check_keys(options: Mapping[Any, Any]) -> None:
    """Refuse a key that is no option, with the nearest one."""
    for key in options:
        if key in RULES:
            continue
        if key in DATA_KEYS:
            msg = (
                f"Option {key!r} is data and no key of Config; give it to explain or log_explanations itself."
            )
            raise InvalidInput(msg)
        close = difflib.get_close_matches(str(key), [*RULES, *DATA_KEYS], n=1)
        known = ", ".join([*RULES, *DATA_KEYS])
        hint = f"did you mean {close[0]!r}?" if close else f"known: {known}."
        msg = f"Option {key!r} is not known; {hint}"
        raise InvalidInput(msg)


def _message(error: ValidationError) -> str:
    """Return rule, value and remedy of the option that is wrong, without the validator's own words."""
    errors = error.errors()
    deepest = max(errors, key=lambda e: (e["loc"][0] == errors[0]["loc"][0], len(e["loc"])))
    option = str(deepest["loc"][0])
    rule, remedy = RULES[option]
    return f"Option {option} must {rule}, got {_found(deepest)}; {remedy}."


def _found(error: ErrorDetails) -> str:
    """Return the wrong value and where it stands: "3 (int) at entry 1"."""
    value = error["input"]
    shown = f"{_short(value)} ({type(value).__name__})"
    if "[key]" in error["loc"]:
        return f"{shown} as a name"
    places = [_place(part) for part in error["loc"][1:] if _place(part)]
    return f"{shown} at {' of '.join(reversed(places))}" if places else shown


def _place(part: int | str) -> str:
    """Return one step of the way to a value; nothing for the validator's names of types."""
    if isinstance(part, int):
        return f"entry {part + 1}"
    known = part in ("str", "bool", "int", "float") or part.startswith("tuple[")
    return "" if known else repr(part)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def load(
    config: Config | Mapping[str, Any] | str | Path | None, options: Mapping[str, Any]
) -> tuple[Config, dict[str, Any]]:
    """Merge a config (object, mapping or YAML/JSON path) with keyword options, which win.

    Returns
    -------
    tuple of Config and dict
        The frozen options, and the data-valued ones (``background``, ``sample_weight``).
    """
    merged: dict[str, Any] = {}
    if isinstance(config, Config):
        merged.update(config.model_dump(exclude_unset=True))
    elif isinstance(config, Mapping):
        merged.update(config)
    elif config is not None:
        if not isinstance(config, str | Path):
            msg = f"Argument config must be a file, a mapping or a Config, got {type(config).__name__}."
            raise InvalidInput(msg)
        merged.update(_read(Path(config)))
    merged.update(options)
    data = {key: merged.pop(key) for key in DATA_KEYS if key in merged}
    return Config.parse(merged), data


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        msg = f"Argument config must be a file, a mapping or a Config; there is no file {str(path)!r}."
        raise InvalidInput(msg)
    try:
        text = path.read_text(encoding="utf-8-sig")
        parsed = parse(text, suffix=path.suffix)
    except ValueError as error:  # also text that is not UTF-8
        msg = f"Argument config must be a YAML or JSON file; {str(path)!r} is not: {error}"
        raise InvalidInput(msg) from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        msg = f"Config file {str(path)!r} must hold a mapping of options, got {type(parsed).__name__}."
        raise InvalidInput(msg)
    return parsed


def names(values: Sequence[str]) -> str:
    """Return names for a message: at most five, quoted."""
    shown = ", ".join(repr(v) for v in values[:5])
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")
