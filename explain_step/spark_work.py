"""What Spark's executors get and read: the model with a few rows, sent once, and blocks of rows as subjects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from explain_step import labels
from explain_step.errors import InvalidInput, NotApplicable
from explain_step.explainers import offered
from explain_step.explainers.prepared import Explain, prepare
from explain_step.model_inputs import select
from explain_step.streaming import Plan
from explain_step.types import FeaturePerturbation, FloatArray, Response, Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What every executor gets, once.

    Attributes
    ----------
    subject : Subject
        A few rows of the sample, with the model and the whole background.
    rows : int
        Of the whole: the engine is chosen for them.
    dtypes : dict of str to dtype
        Of the columns that Spark stores otherwise (categories, booleans with missing values).
    missing : frozenset of str
        Columns with missing values in any row.
    target, weights : str, optional
        Names of columns.
    names : tuple of str, optional
        Of the classes, where they are declared.
    unit : float
        What weights are divided by, a power of two near their mean: only their ratios count.
    """

    subject: Subject
    plan: Plan
    rows: int
    dtypes: dict[str, Any]
    missing: frozenset[str]
    target: str | None
    weights: str | None
    names: tuple[str, ...] | None
    unit: float = 1.0
    feature_perturbation: FeaturePerturbation = "interventional"


def as_trained(frame: pd.DataFrame, dtypes: dict[str, Any]) -> pd.DataFrame:
    """Return the frame with the given dtypes: categories, and booleans that may be missing.

    Raises
    ------
    InvalidInput
        A value is no level of its category: it would become a missing value without a word.
    """
    found = frame.copy(deep=False)
    for name, dtype in dtypes.items():
        if not isinstance(dtype, pd.CategoricalDtype):
            found[name] = frame[name].astype(dtype)
            continue
        codes = dtype.categories.get_indexer(pd.Index(frame[name]))
        lost = (codes < 0) & frame[name].notna().to_numpy()
        if lost.any():
            level = frame[name][lost].iloc[0]
            msg = (
                f"Argument X must have the levels of the background in its categories; column {name!r} has {level!r}, "
                "which the background does not have as a level; add it to the category of the background's column."
            )
            raise InvalidInput(msg)
        found[name] = pd.Categorical.from_codes(codes, dtype=dtype)
    return found


def data_of(given: Any) -> bytes:
    """Return the bytes of what `sent_to` gave."""
    found: bytes = given if isinstance(given, bytes) else given.value
    return found


@lru_cache(maxsize=1)
def received(data: bytes) -> Work:
    """Return the work; a worker process reads it once."""
    from pyspark.serializers import CloudPickleSerializer

    work: Work = CloudPickleSerializer().loads(data)
    return work


@lru_cache(maxsize=1)
def engine(data: bytes) -> tuple[Work, Explain]:
    """Return the work and the prepared explainer; a worker process makes them once, whatever it reads afterwards."""
    work = received(data)
    explain = prepare(work.subject, rows=work.rows, explainers=offered(work.feature_perturbation))
    if explain is None:
        msg = "executors explain trees and linear models only, and this model is explained in another way"
        raise NotApplicable(msg)
    return work, explain


def block(work: Work, frame: pd.DataFrame) -> Subject:
    """Return a block of rows as a subject: the sample's model and background, the dtypes of its columns."""
    model = work.subject.model
    given = None if work.target is None else frame.pop(work.target)
    # there may be labels, and none in the sample: as of a score without a unit
    y = None if work.subject.y is None else labels.target(given, model=model, names=work.names)
    weights = None if work.weights is None else _weights(frame.pop(work.weights), unit=work.unit)
    X = select(frame, model.feature_names).astype(dict(work.subject.X.dtypes))
    return replace(
        work.subject,
        X=X,
        frame=frame,
        y=y,
        weights=weights,
        row_ids=np.arange(len(frame)),
        response=Response(output=model.predict(X)) if work.plan.measure is None else model.respond(X),
    )


def unit_of(weights: pd.Series[Any]) -> float:
    """Return the power of two next to the mean of a sample's weights."""
    largest = float(weights.max())
    return float(2.0 ** np.round(np.log2(largest) + np.log2(float((weights / largest).mean()))))


def _weights(column: pd.Series[Any], *, unit: float) -> FloatArray:
    """Return weights of some rows in units; that they are all zero is no error here."""
    found = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(found).all() or (found < 0).any():
        bad = found[~np.isfinite(found) | (found < 0)][0]
        msg = f"Argument sample_weight must be finite and not negative, got {bad}; give weights from 0 up."
        raise InvalidInput(msg)
    found = found / unit
    if found.max(initial=0.0) > labels.LARGEST_WEIGHT:  # their squares would leave the range of numbers
        msg = (
            f"Argument sample_weight must be within {labels.LARGEST_WEIGHT:g} times the mean weight of a sample, got "
            f"{found.max() * unit:g}; rescale or drop such rows."
        )
        raise InvalidInput(msg)
    return found


@contextmanager
def sent_to(source: Any, work: Work) -> Iterator[Any]:
    """Give a broadcast of the work; with Spark Connect, which has none, the bytes themselves.

    The bytes go from this session to its own executors and to nobody else: they are as trusted as the code that runs
    there. Boosters serialise themselves in their own formats inside.
    """
    from pyspark.serializers import CloudPickleSerializer

    try:
        data = CloudPickleSerializer().dumps(work)
    except Exception as error:
        msg = (
            f"Argument model must be one that can be sent to Spark's executors; {work.subject.model.model_class or 'it'} "
            f"cannot be serialised ({type(error).__name__}: {str(error)[:200]}); explain a sample without Spark."
        )
        raise InvalidInput(msg) from error
    if ".connect." in type(source).__module__:
        yield data
        return
    given = source.sparkSession.sparkContext.broadcast(data)
    try:
        yield given
    finally:
        given.destroy()
