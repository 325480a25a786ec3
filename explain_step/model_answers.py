"""From a model's abilities and the options to a `FittedModel` whose answers are checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import model_options, privacy
from explain_step.config import Config
from explain_step.errors import InvalidInput, PredictionFailed
from explain_step.model_callables import are_distributions, as_array
from explain_step.model_families import Abilities, Ask, through
from explain_step.model_inputs import Columns, suspects
from explain_step.threads import Pace, as_given
from explain_step.types import FittedModel, FloatArray, OutputSpace, Reads, Response

TRIAL_ROWS = 8
PROBABILITY_SLACK = 1e-6
NO_COLUMNS = Columns(names=(), labels=())
LARGEST = 1e38
"""Outputs and targets beyond are refused: variances and their errors could not be computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Voice:
    """What is needed to answer: the model's abilities, its columns and the chosen output."""

    abilities: Abilities
    columns: Columns
    space: OutputSpace
    positive: int | None
    classes: npt.NDArray[Any] | None
    config: Config
    pace: Pace | None
    """Of trees alone: of other models the last bits of an answer may depend on the number of threads."""


def build(
    abilities: Abilities, columns: Columns, *, frame: pd.DataFrame, config: Config, pace: Pace | None = None
) -> FittedModel:
    """Return the model's one interface, after a trial on a few rows.

    Raises
    ------
    InvalidInput
        The options contradict the model.
    PredictionFailed
        The trial failed.
    """
    task = model_options.task(abilities, config=config)
    space = model_options.space(abilities, config=config)
    classes = abilities.classes
    positive = model_options.positive(classes, task=task, config=config)
    voice = _Voice(
        abilities=abilities,
        columns=columns,
        space=space,
        positive=positive,
        classes=None if classes is None else class_array(classes),
        config=config,
        pace=(pace or Pace()) if abilities.family == "tree" and abilities.preprocessing is None else None,
    )
    trial = _respond(voice, frame.iloc[:TRIAL_ROWS])
    blackbox_because = abilities.link if space == "prediction" and abilities.family != "blackbox" else None
    return FittedModel(
        respond=lambda rows: _respond(voice, rows),
        outputs=lambda rows: _outputs(voice, rows)[0],
        scored=lambda rows, reads: _scored(voice, rows, reads),
        derived_outputs=None if abilities.final is None else _of_derived(abilities.final, voice),
        native=None if blackbox_because or abilities.family == "blackbox" else abilities.native,
        family="blackbox" if blackbox_because else abilities.family,
        task=task,
        output_space=space,
        output_names=model_options.output_names(
            abilities, positive=positive, count=trial.output.shape[1], config=config
        ),
        feature_names=columns.names,
        classes=classes,
        positive=positive,
        preprocessing=abilities.preprocessing,
        model_class=abilities.model_class,
        reason=model_options.link_reason(abilities) if blackbox_because else abilities.reason,
        unjudged=abilities.unjudged,
        quantile=abilities.quantile,
        pace=voice.pace,
    )


def class_array(classes: tuple[Any, ...]) -> npt.NDArray[Any]:
    """Return class labels as an array in which each label keeps its value and type."""
    kinds = {type(label) for label in classes}
    if len(kinds) == 1 and kinds <= {int, float, bool}:
        return np.array(classes)
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array


# --- answers


def _of_derived(final: Abilities, voice: _Voice) -> Callable[[Any], FloatArray]:
    """Return the question that asks the final estimator about rows that have been through the steps before it."""

    def outputs(derived: Any) -> FloatArray:
        asked = replace(voice, abilities=through(final, lambda _: derived), columns=NO_COLUMNS)
        return _outputs(asked, pd.DataFrame(index=pd.RangeIndex(derived.shape[0])))[0]

    return outputs


def _respond(voice: _Voice, frame: pd.DataFrame) -> Response:
    output, probability = _outputs(voice, frame)
    abilities = voice.abilities
    if voice.classes is None:
        # a target is compared with a prediction in its own unit, not with the margin under a link
        ask = abilities.prediction if voice.space == "margin" else None
        prediction = None if ask is None else _numbers(voice, ask, frame, question="predict")
        return Response(output=output, prediction=prediction)
    if probability is None and abilities.probability is not None:
        probability = _probability(voice, frame)
    return Response(
        output=output,
        label=_label(voice, frame, output=output, probability=probability),
        probability=probability,
    )


def _scored(voice: _Voice, frame: pd.DataFrame, reads: Reads) -> Response:
    """Return what a metric reads; for probabilities and labels the model is not asked about its output as well."""
    abilities, nothing = voice.abilities, np.empty((len(frame), 0))
    if voice.classes is not None and reads == "probability" and abilities.probability is not None:
        return Response(output=nothing, probability=_probability(voice, frame))
    if voice.classes is not None and reads == "label" and abilities.label is not None:
        return Response(output=nothing, label=_label(voice, frame, output=nothing, probability=None))
    return _respond(voice, frame)


def _outputs(voice: _Voice, frame: pd.DataFrame) -> tuple[FloatArray, FloatArray | None]:
    """Return the explained output, and the class probabilities where they were needed for it."""
    abilities = voice.abilities
    if voice.space == "probability":
        probability = _probability(voice, frame)
        chosen = probability if voice.positive is None else probability[:, [voice.positive]]
        return np.ascontiguousarray(chosen), probability
    if voice.space == "prediction":
        return _numbers(voice, abilities.prediction, frame, question="predict"), None
    margin = _numbers(voice, abilities.margin, frame, question="the margin")
    if voice.classes is None:
        return margin, None
    wanted = 1 if voice.positive is not None else len(voice.classes)
    if margin.shape[1] != wanted:
        msg = (
            f"The margin of {abilities.model_class} must have {wanted} column(s) for {len(voice.classes)} "
            "classes, got "
            f"{margin.shape[1]}; for SVC use decision_function_shape='ovr'."
        )
        raise PredictionFailed(msg)
    return -margin if voice.positive == 0 else margin, None


def _probability(voice: _Voice, frame: pd.DataFrame) -> FloatArray:
    abilities = voice.abilities
    assert voice.classes is not None
    values = _numbers(voice, abilities.probability, frame, question="predict_proba")
    if values.shape[1] == 1 and len(voice.classes) == 2:
        values = np.column_stack([1 - values[:, 0], values[:, 0]])
    if values.shape[1] != len(voice.classes):
        msg = (
            f"The probabilities of {abilities.model_class} must have one column per class "
            f"({len(voice.classes)}), got "
            f"{values.shape[1]}."
        )
        raise PredictionFailed(msg)
    outside = ((values < -PROBABILITY_SLACK) | (values > 1 + PROBABILITY_SLACK)).any(axis=1)
    if outside.any():
        msg = (
            f"The probabilities of {abilities.model_class} must lie in [0, 1]; {int(outside.sum())} of "
            f"{len(values)} rows have others "
            f"(first: row {int(np.argmax(outside))}); return predict_proba, or use output='margin'."
        )
        raise PredictionFailed(msg)
    if abilities.sums_to_one and not are_distributions(values):
        msg = (
            f"The probabilities of {abilities.model_class} must sum to 1 in each row; for several labels per "
            "row "
            "(multi-label) give a callable that returns the probabilities of one label."
        )
        raise PredictionFailed(msg)
    return values


def _label(
    voice: _Voice, frame: pd.DataFrame, *, output: FloatArray, probability: FloatArray | None
) -> npt.NDArray[Any]:
    classes = voice.classes
    assert classes is not None
    if voice.abilities.label is not None:
        answer = np.asarray(_ask(voice, voice.abilities.label, frame, question="predict"))
        if answer.size != len(frame):
            msg = (
                f"predict of {voice.abilities.model_class} must return one label per row, got shape "
                f"{answer.shape}."
            )
            raise PredictionFailed(msg)
        return np.asarray(classes[label_positions(answer.reshape(-1), tuple(classes.tolist()))])
    if probability is not None:
        positions = np.argmax(probability, axis=1)
    elif voice.positive is None:
        positions = np.argmax(output, axis=1)
    else:
        positions = np.where(output[:, 0] > 0, voice.positive, 1 - voice.positive)
    return np.asarray(classes[positions])


def label_positions(labels: npt.NDArray[Any], classes: tuple[Any, ...]) -> npt.NDArray[np.int64]:
    """Return positions of predicted labels among the classes: by value, or by text (CatBoost)."""
    by_value = {label: k for k, label in enumerate(classes)}
    by_text = {str(label): k for k, label in enumerate(classes)}
    found = [by_value.get(label, by_text.get(str(label), -1)) for label in labels.tolist()]
    if -1 in found:
        msg = (
            f"predict returned the label {labels.tolist()[found.index(-1)]!r}, which is not among the "
            "classes "
            f"{list(classes)!r}; give a callable that returns probabilities, and class_names."
        )
        raise PredictionFailed(msg)
    return np.array(found, dtype=np.int64)


def _numbers(voice: _Voice, ask: Ask | None, frame: pd.DataFrame, *, question: str) -> FloatArray:
    """Ask, and check that the answer is one finite row of numbers per row."""
    assert ask is not None
    who = f"{question} of {voice.abilities.model_class}"
    answer = _ask(voice, ask, frame, question=question)
    if isinstance(answer, list) and answer and getattr(answer[0], "ndim", 0) == 2:
        msg = (
            f"{who} returned one array per output (multi-output classification); explain one output at a "
            "time."
        )
        raise InvalidInput(msg)
    values = as_array(answer, name=who)
    if values.dtype.kind not in "fiub":
        msg = (
            f"{who} must return numbers, got {values.dtype}; give a callable that returns the number to explain, a "
            "class's probability, say."
        )
        raise PredictionFailed(msg)
    values = values.astype(np.float64)
    values = values.reshape(len(values), -1)
    if len(values) != len(frame):
        msg = f"{who} must return one entry per row, got {len(values)} for {len(frame)} rows."
        raise PredictionFailed(msg)
    _check_size(values, who=who)
    broken = ~np.isfinite(values).all(axis=1)
    if broken.any():
        msg = (
            f"{who} must return finite numbers, but returned NaN or infinity for {int(broken.sum())} of "
            f"{len(frame)} rows "
            f"(first: row {int(np.argmax(broken))}){suspects(frame)}; impute what the model cannot take, or leave "
            "these rows out."
        )
        raise PredictionFailed(msg)
    return values


def _check_size(values: FloatArray, *, who: str) -> None:
    """Refuse numbers whose squares and fourth powers leave the range of numbers."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    if largest > LARGEST:
        msg = f"{who} must return numbers within {LARGEST:g}, got {largest:.3g}; rescale the target."
        raise PredictionFailed(msg)


def _ask(voice: _Voice, ask: Ask, frame: pd.DataFrame, *, question: str) -> Any:
    """Ask the model on its own copy of the rows; what it raises is wrapped with what is known about them."""
    name = voice.abilities.model_class
    try:
        rows = voice.columns.prepare(frame)
        with as_given(), nullcontext() if voice.pace is None else voice.pace.call(len(frame)):
            return ask(rows)
    except (InvalidInput, MemoryError):  # the rows are not at fault
        raise
    except Exception as error:
        if type(error).__name__ == "NotFittedError":
            msg = f"Argument model must be fitted, but {name} says: {error}"
            raise InvalidInput(msg) from error
        told = privacy.told(error, config=voice.config)[:500]
        msg = (
            f"{question} of {name} raised on {len(frame)} rows ({told}){suspects(frame, error=error)}; give rows "
            "with the columns and types that it was trained on, or the Pipeline that prepares them."
        )
        raise PredictionFailed(msg) from error
