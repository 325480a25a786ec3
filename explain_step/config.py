"""The options of a step: parsed and validated once, at the edge, then frozen."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from explain_step.errors import InvalidInput

SegmentDeclaration = str | tuple[str, ...]
DATA_KEYS = ("background", "sample_weight")
"""Options that may be data (frames, arrays) in Python; a config file can only name a path or a column."""


class Config(BaseModel):
    """Options of `explain_step.explain` and keys of the config file.

    Attributes
    ----------
    task : {"binary", "multiclass", "regression"}, optional
        Taken from the model when not given.
    output : {"probability", "margin", "prediction"}, optional
        The explained quantity. Default: probability for classifiers, prediction otherwise.
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
        Seconds for estimated (black-box) work. Exact work has no budget.
    seed : int
        Seed of everything random.
    feature_groups : dict of str to tuple of str
        Groups of raw columns whose attributions are summed as one more view.
    feature_labels : dict of str to str
        Names of columns for readers.
    redact : tuple of str
        Columns whose values are published nowhere.
    privacy : {"standard", "strict"}
        ``strict`` publishes no raw row, no minimum or maximum and no rare level.
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

    version: Literal[1] = 1
    task: Literal["binary", "multiclass", "regression"] | None = None
    output: Literal["probability", "margin", "prediction"] | None = None
    positive_class: bool | int | float | str | None = None
    class_names: tuple[str, ...] | None = None
    segments: tuple[SegmentDeclaration, ...] = ()
    sensitive: tuple[str, ...] = ()
    max_rows: int | None = Field(default=None, ge=1)
    budget: float = Field(default=60.0, gt=0)
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
        return (value,) if isinstance(value, str) else value

    @field_validator("budget", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        if isinstance(value, str):
            text = value.strip().lower()
            scale = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
            try:
                return float(text[:-1]) * scale if scale else float(text)
            except ValueError:
                msg = "write seconds as a number, or a text such as '60s', '5m' or '1h'"
                raise ValueError(msg) from None
        return value

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Config:
        """Validate ``options``; unknown keys are refused with a suggestion."""
        for key in options:
            if key not in cls.model_fields:
                close = difflib.get_close_matches(key, [*cls.model_fields, *DATA_KEYS], n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(cls.model_fields)}"
                msg = f"Option {key!r} is not known{hint}"
                raise InvalidInput(msg)
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            msg = f"Option {where!r} is not valid: {first['msg']}; got {first.get('input')!r}."
            raise InvalidInput(msg) from error

    def canonical(self) -> dict[str, Any]:
        """Return the options as plain JSON values, for the manifest and its digest."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        return plain


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
        text = path.read_text(encoding="utf-8")
        parsed = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
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
