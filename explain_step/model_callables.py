"""Plain ``predict`` callables: what their answers mean is read from a few of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.config import Config
from explain_step.errors import InvalidInput, PredictionFailed
from explain_step.model_families import Abilities, Ask, positive_position
from explain_step.model_inputs import Columns, Container, suspects
from explain_step.types import FloatArray

SAMPLE_ROWS = 256
TOLERANCE = 1e-6
LABELS_AT_MOST = 20
OTHERS: tuple[Container, ...] = ("array", "records")
"""What a callable is handed where it takes no DataFrame."""
LABEL_REMEDY = (
    "a class label is not a number to explain: give the fitted classifier itself, or a callable that "
    "returns class "
    "probabilities (its predict_proba); for an MLflow pyfunc log the model with "
    "pyfunc_predict_fn='predict_proba'; "
    "where the numbers are quantities, not labels, say task='regression'"
)
NUMBERS_REMEDY = (
    "give a callable that returns numbers alone, one or a row of them for each row, such as "
    "lambda rows: model.predict(rows)[['score']]"
)
SCORES = ("decision_function", "score_samples", "predict_proba")
"""What outlier detectors and mixtures can be asked instead of a label."""


def probe(
    call: Callable[[Any], Any], columns: Columns, *, frame: pd.DataFrame, name: str
) -> tuple[Columns, Any]:
    """Return the container the callable takes, and its raw answer on a few rows.

    A DataFrame is tried first, then (when all columns are numbers) an array, at last a list of dicts.

    Raises
    ------
    PredictionFailed
        The callable takes none of them, or does not return one entry per row.
    """
    sample = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, SAMPLE_ROWS).astype(np.int64))]
    numeric = all(pd.api.types.is_numeric_dtype(dtype) for dtype in sample.dtypes)
    tries = [columns]
    if columns.container == "frame":
        tries += [replace(columns, container=other) for other in OTHERS if numeric or other != "array"]
    failures: list[tuple[str, Exception | None]] = []
    for attempt in tries:
        try:
            answer = call(attempt.prepare(sample))
        except Exception as error:  # noqa: BLE001 - raised below when nothing works
            cause = quoted_cause(error)
            failures.append((f"{type(cause).__name__}: {str(cause)[:300]}", cause))
            continue
        rows = row_count(answer)
        if rows == len(sample):
            return attempt, answer
        got = type(answer).__name__ if rows is None or isinstance(answer, dict) else f"{rows} entries"
        failures.append((f"it must return one number per row, got {got} for {len(sample)} rows", None))
    # an answer of the wrong length is the cause, whatever the second try made of it
    causes = failures if failures[0][1] is not None else failures[:1]
    asked = [
        text for attempt, (text, _) in zip(tries, causes, strict=False) if attempt.container != "records"
    ]
    told = "; with an array: ".join(dict.fromkeys(asked))
    msg = (
        f"{name} failed on {len(sample)} rows given as a {tries[0].container}: {told}"
        f"{suspects(sample, error=failures[0][1])}; give a callable that takes these columns and returns a number, or a "
        "row of numbers, for each row."
    )
    raise PredictionFailed(msg) from failures[0][1]


def quoted_cause(error: Exception) -> Exception:
    """Return the first error of a chain whose words the later ones only repeat, behind the whole data it may be.

    Examples
    --------
    >>> inner = ValueError("no such level")
    >>> outer = RuntimeError(f"failed on {'row ' * 1000}: {inner}")
    >>> outer.__cause__ = inner
    >>> quoted_cause(outer)
    ValueError('no such level')
    """
    before = error.__cause__ or error.__context__
    if isinstance(before, Exception) and str(before) and str(before) in str(error):
        return quoted_cause(before)
    return error


def row_count(answer: Any) -> int | None:
    """Return the number of rows of a raw answer."""
    if is_sparse(answer):
        return int(answer.shape[0])
    return len(answer) if hasattr(answer, "__len__") else None


def is_sparse(answer: Any) -> bool:
    """Return whether an answer is a scipy sparse matrix, whose length is not defined."""
    return hasattr(answer, "toarray") and hasattr(answer, "nnz")


def callable_abilities(
    call: Ask, answer: Any, *, config: Config, name: str, classes: Any = None
) -> Abilities:
    """Return what a callable's answers mean, from a raw answer and the options.

    Two-dimensional rows that sum to one are class probabilities; one-dimensional numbers are a regression,
    or with ``task="binary"`` the probability of the positive class (its margin with ``output="margin"``).

    Raises
    ------
    InvalidInput
        The answers are class labels, or contradict the task.
    """
    values = as_array(answer, name=name)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind not in "fiub":
        msg = f"Argument model must return numbers, but {name} returns {_shown(values)}; {_remedy(values, call)}."
        raise InvalidInput(msg)
    if values.ndim == 2:
        return _wide(call, values, config=config, name=name, classes=classes, titles=_titles(answer))
    if config.task == "multiclass":
        msg = (
            f"Option task is 'multiclass', but {name} returns one number per row; return class probabilities "
            "of shape "
            "(rows, classes)."
        )
        raise InvalidInput(msg)
    if config.task == "binary":
        return _binary(call, values, config=config, name=name, classes=classes)
    if config.task is None and looks_like_labels(values):
        msg = (
            f"Argument model must return probabilities or quantities, but {name} returns {_shown(values)}; "
            f"{_remedy(values, call)}."
        )
        raise InvalidInput(msg)
    return _regression(call, name=name, titles=None)


def as_array(answer: Any, *, name: str) -> npt.NDArray[Any]:
    """Return a raw answer as an array of one or two dimensions; masked entries become NaN."""
    if is_sparse(answer):
        answer = answer.toarray()
    if isinstance(answer, np.ma.MaskedArray):
        answer = np.ma.filled(np.ma.asarray(answer, dtype=np.float64), np.nan)
    try:
        plain = answer.to_numpy() if isinstance(answer, pd.DataFrame | pd.Series) else np.asarray(answer)
    except ValueError as error:  # rows of different lengths
        msg = f"{name} must return rows of one length: {error}"
        raise PredictionFailed(msg) from error
    except (RuntimeError, TypeError) as error:  # a tensor that tracks gradients, or lies on a device
        msg = (
            f"{name} must return numbers that NumPy can read, but returned {type(answer).__name__} ({error}); give a "
            "callable that returns an array."
        )
        raise PredictionFailed(msg) from error
    if plain.dtype == object:
        plain = np.array(
            pd.DataFrame(plain).infer_objects().to_numpy() if plain.ndim == 2 else _inferred(plain)
        )
    if plain.ndim == 2 and plain.shape[1] == 0:
        msg = f"{name} must return at least one number per row, got shape {plain.shape}."
        raise PredictionFailed(msg)
    if plain.ndim not in (1, 2):
        msg = f"{name} must return one or two dimensions, got shape {plain.shape}."
        raise PredictionFailed(msg)
    return plain


def _inferred(values: npt.NDArray[Any]) -> Any:
    return pd.Series(values).infer_objects().to_numpy()


def looks_like_labels(values: npt.NDArray[Any]) -> bool:
    """Return whether numbers could be class labels: booleans, integers, or few whole numbers.

    Examples
    --------
    >>> looks_like_labels(np.array([0.0, 1.0, 1.0])), looks_like_labels(np.array([0.2, 1.0]))
    (True, False)
    """
    if values.dtype.kind in "biu":
        return True
    distinct = np.unique(values)
    return 2 <= len(distinct) <= LABELS_AT_MOST and bool(np.all(distinct == np.round(distinct)))


def _shown(values: npt.NDArray[Any]) -> str:
    distinct = list(dict.fromkeys(repr(v) for v in values.reshape(-1).tolist()))  # a dict has no hash
    more = ", …" if len(distinct) > 3 else ""
    first = [text if len(text) <= 60 else f"{text[:59]}…" for text in distinct[:3]]
    return f"values like {', '.join(first)}{more} ({values.dtype})"


def _remedy(values: npt.NDArray[Any], call: Ask) -> str:
    """Return what to do about answers that are labels, or no numbers at all."""
    scores = [score for score in SCORES if hasattr(getattr(call, "__self__", None), score)]
    if scores:
        return f"a label is not a number to explain: give the model's {' or '.join(scores)}"
    labels = values.dtype.kind in "biufUST" or all(
        isinstance(v, str | bool) for v in values.reshape(-1).tolist()
    )
    return LABEL_REMEDY if labels else NUMBERS_REMEDY


def _titles(answer: Any) -> tuple[str, ...] | None:
    """Return column names of a DataFrame answer, where they are names and not positions."""
    if isinstance(answer, pd.DataFrame) and not isinstance(answer.columns, pd.RangeIndex):
        return tuple(str(column) for column in answer.columns)
    return None


def are_distributions(values: npt.NDArray[Any]) -> bool:
    """Return whether every row is a probability distribution."""
    inside = (values >= -TOLERANCE) & (values <= 1 + TOLERANCE)
    return bool(inside.all() and np.all(np.abs(values.sum(axis=1) - 1) <= 1e-3))


def _wide(
    call: Ask,
    values: npt.NDArray[Any],
    *,
    config: Config,
    name: str,
    classes: Any,
    titles: tuple[str, ...] | None,
) -> Abilities:
    if config.task == "regression" or (config.task is None and not are_distributions(values)):
        return _regression(call, name=name, titles=titles)
    if not are_distributions(values):
        msg = (
            f"Option task is {config.task!r}, but the rows that {name} returns are no probabilities: they "
            "must lie in "
            "[0, 1] and sum to 1; return predict_proba, or say task='regression' to explain each output."
        )
        raise InvalidInput(msg)
    return Abilities(
        kind="classifier",
        model_class=name,
        classes=_labels(classes if classes is not None else titles, count=values.shape[1], config=config),
        preferred="probability",
        probability=call,
    )


def _labels(classes: Any, *, count: int, config: Config) -> tuple[Any, ...]:
    """Return class labels: the model's own, the declared names, or positions."""
    found = classes if classes is not None else config.class_names
    if found is None:
        return tuple(range(count))
    labels = tuple(c.item() if hasattr(c, "item") else c for c in found)
    if len(labels) != count:
        msg = (
            f"Option class_names must have one name per class, got {len(labels)} for {count} probability "
            "columns."
        )
        raise InvalidInput(msg)
    return labels


def _binary(call: Ask, values: npt.NDArray[Any], *, config: Config, name: str, classes: Any) -> Abilities:
    labels = _labels(classes, count=2, config=config)
    wanted = config.positive_class
    # one number per row speaks of the positive class, whichever that is
    first = wanted is not None and positive_position(labels, wanted, names=config.class_names) == 0
    if config.output == "margin":
        margin: Ask = (lambda rows: -np.asarray(call(rows), dtype=np.float64)) if first else call
        return Abilities(
            kind="classifier", model_class=name, classes=labels, preferred="margin", margin=margin
        )
    inside = values.min() >= -TOLERANCE and values.max() <= 1 + TOLERANCE
    if not inside or looks_like_labels(values):
        rule = "must lie in [0, 1]" if not inside else "must be probabilities, not the labels themselves"
        msg = (
            f"Option task is 'binary', so what {name} returns {rule}; got {_shown(values)}; return the "
            "positive class's "
            "probability, or say output='margin' for log-odds."
        )
        raise InvalidInput(msg)

    def both(rows: Any) -> FloatArray:
        positive = np.asarray(call(rows), dtype=np.float64).reshape(-1)
        return np.column_stack([positive, 1 - positive] if first else [1 - positive, positive])

    return Abilities(
        kind="classifier",
        model_class=name,
        classes=labels,
        preferred="probability",
        probability=both,
    )


def _regression(call: Ask, *, name: str, titles: tuple[str, ...] | None) -> Abilities:
    return Abilities(
        kind="regressor", model_class=name, preferred="prediction", prediction=call, output_names=titles
    )
