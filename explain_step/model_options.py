"""The options against the model: task, output space, positive class and names of the outputs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from explain_step.config import Config
from explain_step.config import names as quoted
from explain_step.errors import InvalidInput
from explain_step.model_families import Abilities, Ask, positive_position
from explain_step.types import Caveat, FittedModel, OutputSpace, Task


def task(abilities: Abilities, *, config: Config) -> Task:
    """Return the task; refuse a declared one that contradicts the model."""
    classes = abilities.classes
    found: Task = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    if config.task is not None and config.task != found:
        told = "is a regressor" if classes is None else f"is a classifier of {len(classes)} classes"
        msg = (
            f"Option task must fit the model, got {config.task!r}, but {abilities.model_class} {told} (task "
            f"{found!r}); "
            "leave task out, or give a callable that returns what you want explained."
        )
        raise InvalidInput(msg)
    if classes is None and config.positive_class is not None:
        msg = (
            f"Option positive_class is for classifiers, got {config.positive_class!r}, but the task is "
            "regression; leave it out."
        )
        raise InvalidInput(msg)
    return found


def space(abilities: Abilities, *, config: Config) -> OutputSpace:
    """Return the output space: the wanted one if the model has it, else its preferred one."""
    wanted = config.output or abilities.preferred
    available: dict[str, Ask | None] = {
        "probability": abilities.probability,
        "margin": abilities.margin,
        "prediction": abilities.prediction,
    }
    if available[wanted] is not None:
        return wanted
    possible = [space for space, ask in available.items() if ask is not None]
    remedy = f"use output={possible[0]!r}"
    if wanted == "probability" and abilities.kind == "classifier":
        remedy += (
            " or calibrate the model (sklearn.calibration.CalibratedClassifierCV; SVC(probability=True))"
        )
    msg = (
        f"Option output must be something the model gives, got {wanted!r}, but {abilities.model_class} is a "
        f"{abilities.kind} "
        f"that gives {' and '.join(possible)}; {remedy}."
    )
    raise InvalidInput(msg)


def positive(classes: tuple[Any, ...] | None, *, task: Task, config: Config) -> int | None:
    """Return the position of the explained class of two; None for several classes and regressions."""
    if classes is None:
        return None
    names = config.class_names
    if names is not None and len(names) != len(classes):
        msg = (
            f"Option class_names must have one name per class, got {len(names)} for the classes "
            f"{list(classes)!r}."
        )
        raise InvalidInput(msg)
    if names is not None and len(set(names)) != len(names):
        msg = f"Option class_names must be unique, got {list(names)!r}."
        raise InvalidInput(msg)
    if task == "multiclass":
        if config.positive_class is not None:
            msg = (
                f"Option positive_class is for two classes, got {config.positive_class!r}, but the model has "
                f"{len(classes)}; leave "
                "it out (every class is explained), or give a callable that returns one class's probability "
                "with task='binary'."
            )
            raise InvalidInput(msg)
        return None
    return (
        1 if config.positive_class is None else positive_position(classes, config.positive_class, names=names)
    )


def output_names(
    abilities: Abilities, *, positive: int | None, count: int, config: Config
) -> tuple[str, ...]:
    """Return one name per explained output."""
    if abilities.classes is None:
        if abilities.output_names is not None and len(abilities.output_names) == count:
            return abilities.output_names
        return default_targets(count)
    names = tuple(str(label) for label in abilities.classes)
    if config.class_names is not None and set(config.class_names) != set(names):
        names = config.class_names
    return names if positive is None else (names[positive],)


def default_targets(count: int) -> tuple[str, ...]:
    """Return output names of a regression whose targets have no names."""
    return ("target",) if count == 1 else tuple(f"target_{k + 1}" for k in range(count))


def link_reason(abilities: Abilities) -> str:
    """Return why a model with a link is a black box in the space of its predictions."""
    parts = "trees" if abilities.family == "tree" else "columns"
    return (
        f"{abilities.model_class} adds up on the {abilities.link} scale, so its prediction is not a sum of "
        f"{parts}; output='margin' is exact where the model has it"
    )


# --- options that name columns


def check_groups(config: Config, model: FittedModel) -> None:
    """Refuse a group of a column that the model does not read, with the nearest one."""
    for group, members in config.feature_groups.items():
        for name in members:
            if name not in model.feature_names:
                msg = (
                    "Option feature_groups must name columns the model reads; there is no column "
                    f"{name!r} (group {group!r}){_nearest(name, model.feature_names)}"
                )
                raise InvalidInput(msg)


def check_labels(config: Config, columns: Sequence[str]) -> None:
    """Refuse empty labels and one label for two columns: a reader could not tell them apart."""
    owner: dict[str, str] = {}
    for column, label in config.feature_labels.items():
        if column not in columns:
            continue
        if not label.strip():
            msg = (
                f"Option feature_labels must give names to read, got {label!r} for {column!r}; leave it out."
            )
            raise InvalidInput(msg)
        if label in owner:
            msg = (
                f"Option feature_labels must give each column a name of its own, got {label!r} for "
                f"{owner[label]!r} and {column!r}; name them apart."
            )
            raise InvalidInput(msg)
        owner[label] = column


def label_caveat(config: Config, columns: Sequence[str]) -> tuple[Caveat, ...]:
    """Tell of labels for columns that are not there: a typing error, or a dictionary of more data."""
    unknown = [name for name in config.feature_labels if name not in columns]
    if not unknown:
        return ()
    near = next((hint for name in unknown if (hint := _nearest(name, columns, alone=True))), ".")
    message = f"Option feature_labels names columns that the data does not have: {quoted(unknown)}{near}"
    return (Caveat(code="unknown_labels", section="data", message=message),)


def _nearest(name: str, columns: Sequence[str], *, alone: bool = False) -> str:
    """Return "; did you mean 'age'?", else the known columns (``alone``: nothing)."""
    close = difflib.get_close_matches(name, list(columns), n=1)
    if close:
        return f"; did you mean {close[0]!r} for {name!r}?" if alone else f"; did you mean {close[0]!r}?"
    return "" if alone else f"; known: {quoted(list(columns))}."
