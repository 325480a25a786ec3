"""Explain every row of a Spark DataFrame where it is: the same engine on every executor, sums of rows to the driver.

::

    all rows ─▶ scan: count, digest ─▶ sample ─▶ compute() on the driver ─▶ plan
    all rows ─▶ executors: block ─▶ attributions ─▶ Totals per partition ─▶ merged ─▶ the sample's tables, of all rows

The plan, the model and the background are sent once. Each partition answers with one summary; a partition that is
computed again because a worker died answers once. The digest of the rows that were explained must be that of the rows
that were scanned, so nothing is lost, changed or counted twice without an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd

from explain_step import compute as compute_room
from explain_step import frames, labels, spark_sampling
from explain_step.compute import Explanation
from explain_step.config import Config
from explain_step.config import names as quoted
from explain_step.errors import InvalidInput, NotApplicable
from explain_step.explainers.prepared import Explain, prepare
from explain_step.model_inputs import select
from explain_step.row_sums import ALGORITHM, RowSum, row_sum
from explain_step.spark_frames import blocks, frame_of, is_spark, replies
from explain_step.spark_sampling import Sample
from explain_step.streaming import (
    Plan,
    Totals,
    caveats,
    from_bytes,
    merge,
    of_block,
    overlay,
    plan_of,
    to_bytes,
)
from explain_step.types import Caveat, FloatArray, Response, Subject

__all__ = ["compute", "is_spark"]

SECTION = "data"
PROBE_ROWS = 256
"""Rows of the sample that go to the executors with the model, to prepare the explainer."""
MERGE_AT = 200
"""Above so many partitions their summaries are first merged by executors, by the root of their number."""
SUM_BYTES = 8 + 256


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
        Of the columns that Spark stores otherwise (categories).
    missing : frozenset of str
        Columns with missing values in any row.
    target, weights : str, optional
        Names of columns.
    names : tuple of str, optional
        Of the classes, where they are declared.
    """

    subject: Subject
    plan: Plan
    rows: int
    dtypes: dict[str, Any]
    missing: frozenset[str]
    target: str | None
    weights: str | None
    names: tuple[str, ...] | None


def compute(
    model: Any,
    source: Any,
    y: Any = None,
    *,
    config: Config,
    background: Any = None,
    sample_weight: Any = None,
    sample_rows: int | None = None,
) -> Explanation:
    """Explain ``model`` on all rows of a Spark DataFrame; what is not a sum of rows comes from a sample.

    Parameters
    ----------
    model : object
        Anything `explain_step.models.wrap` takes; it is sent to the executors, whose Python needs explain_step.
    source : Spark DataFrame of n rows
    y, sample_weight : str, optional
        Names of columns.
    config : Config
        With ``max_rows`` only so many rows are explained, all of the sample.
    background : frame-like, optional
        Small enough for the driver; of a Spark DataFrame a sample is taken.
    sample_rows : int, optional
        Rows of the sample that figures, examples, scores and the bins of curves are made from. Default: 20,000,
        fewer of very wide rows.

    Raises
    ------
    InvalidInput
        An argument breaks a rule, or the rows differ from one pass over them to the next.
    PredictionFailed
        The model cannot be asked about these rows.
    """
    _check_names(source, y=y, sample_weight=sample_weight)
    reference = None if background is None else frames.to_frame(background, argument="background")
    size = config.max_rows or sample_rows or _sample_size(len(source.columns))
    taken = spark_sampling.sample(source, rows=size, seed=config.seed)
    _check_missing(taken, source.columns, y=y)
    dtypes = _categories(reference, taken.frame)
    frame = _as_trained(taken.frame, dtypes)
    explained = partial(
        compute_room.compute, model, y=y, config=config, background=reference, sample_weight=sample_weight
    )
    explanation = explained(frame)
    if explanation.counted is not None and not taken.whole:  # too many values for one table of them
        places = np.linspace(0, len(frame) - 1, len(explanation.attributions.rows)).astype(np.int64)
        explanation = explained(frame.iloc[places].reset_index(drop=True))
    explanation = replace(explanation, all_rows=_record(taken.scan, source.columns))
    if taken.whole:
        return explanation
    if not explanation.attributions.method.exact or config.max_rows is not None:
        return _of_sample(explanation, taken)
    work = work_of(explanation, taken, dtypes=dtypes, target=y, weights=sample_weight)
    try:
        totals = total(source, work, scan=taken.scan)
    except NotApplicable:  # exact by enumeration, which is for few rows
        return _of_sample(explanation, taken)
    return _of_all(explanation, work.plan, totals)


def work_of(
    explanation: Explanation,
    taken: Sample,
    *,
    dtypes: dict[str, Any] | None = None,
    target: str | None = None,
    weights: str | None = None,
) -> Work:
    """Return what the executors are asked for, from the explanation of the sample.

    Raises
    ------
    InvalidInput
        The explanation is estimated: its noise would be added up.
    """
    subject, found = explanation.subject, explanation.attributions
    return Work(
        subject=subject.take(np.arange(min(PROBE_ROWS, len(subject.X)))),
        plan=plan_of(subject, found, explanation.artifacts, config=explanation.config),
        rows=taken.scan.rows.rows,
        dtypes=dtypes or {},
        missing=taken.missing,
        target=target,
        weights=weights,
        names=explanation.config.class_names,
    )


# --- before anything runs


def _check_names(source: Any, *, y: Any, sample_weight: Any) -> None:
    """Labels and weights have to be columns: an array cannot be matched with rows that have no order."""
    for argument, value in (("y", y), ("sample_weight", sample_weight)):
        if value is None:
            continue
        if not isinstance(value, str):
            msg = (
                f"Argument {argument} must be the name of a column where X is a Spark DataFrame, whose rows have no order, "
                f"got {type(value).__name__}; join it to X and give the column's name."
            )
            raise InvalidInput(msg)
        if value not in source.columns:
            close = difflib.get_close_matches(value, source.columns, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            found = quoted(source.columns)
            msg = f"Argument {argument} must be a column of X; there is no column {value!r} in {found}.{hint}"
            raise InvalidInput(msg)


def _check_missing(taken: Sample, columns: list[str], *, y: str | None) -> None:
    if y in taken.missing:
        many = int(taken.scan.missing[columns.index(y)])
        msg = f"Argument y must not have missing values, got {many:,}; drop those rows (X.dropna(subset=[{y!r}]))."
        raise InvalidInput(msg)


def _sample_size(columns: int) -> int:
    """Return the rows of the sample: fewer where rows are wide."""
    most = spark_sampling.SAMPLE_ROWS
    return min(most, max(spark_sampling.FEWEST_ROWS, spark_sampling.SAMPLE_CELLS // max(1, columns)))


def _categories(reference: pd.DataFrame | None, frame: pd.DataFrame) -> dict[str, Any]:
    """Return the categories of the background: Spark has none, so its texts are read as the background has them."""
    if reference is None:
        return {}
    return {
        str(name): dtype
        for name, dtype in reference.dtypes.items()
        if isinstance(dtype, pd.CategoricalDtype) and name in frame.columns
    }


def _as_trained(frame: pd.DataFrame, dtypes: dict[str, Any]) -> pd.DataFrame:
    """Return the frame with the given categories.

    Raises
    ------
    InvalidInput
        A value is no level of its category: it would become a missing value without a word.
    """
    found = frame.copy(deep=False)
    for name, dtype in dtypes.items():
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


# --- on the executors


@lru_cache(maxsize=1)
def _engine(data: bytes) -> tuple[Work, Explain]:
    """Return the work and the prepared explainer; a worker process makes them once, whatever it reads afterwards."""
    from pyspark.serializers import CloudPickleSerializer

    work: Work = CloudPickleSerializer().loads(data)
    explain = prepare(work.subject, rows=work.rows)
    if explain is None:
        msg = "executors explain trees and linear models only, and this model is explained in another way"
        raise NotApplicable(msg)
    return work, explain


def _part(batches: Iterator[Any], data: bytes, *, columns: int) -> bytes | None:
    """Return the sum of the rows of a partition and their totals as bytes; None where it has no rows."""
    work, explain = _engine(data)
    rows, totals = RowSum(), None
    for table in blocks(batches, columns=columns):
        rows = rows + row_sum(frame_of(table))
        frame = _as_trained(frame_of(table, missing=work.missing), work.dtypes)
        block = _block(work, frame)
        found = of_block(work.plan, block, explain(block.X))
        totals = found if totals is None else merge(totals, found)
    return None if totals is None else rows.to_bytes() + to_bytes(totals)


def _block(work: Work, frame: pd.DataFrame) -> Subject:
    """Return a block of rows as a subject: the sample's model and background, the dtypes of its columns."""
    model = work.subject.model
    y = None if work.target is None else labels.target(frame.pop(work.target), model=model, names=work.names)
    weights = None if work.weights is None else _weights(frame.pop(work.weights))
    X = select(frame, model.feature_names).astype(dict(work.subject.X.dtypes))
    return replace(
        work.subject,
        X=X,
        frame=frame,
        y=y,
        weights=weights,
        row_ids=np.arange(len(frame)),
        response=Response(output=model.predict(X)),
    )


def _weights(column: pd.Series[Any]) -> FloatArray:
    """Return weights of some rows; that they are all zero is no error here."""
    found = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(found).all() or (found < 0).any():
        bad = found[~np.isfinite(found) | (found < 0)][0]
        msg = f"Argument sample_weight must be finite and not negative, got {bad}; give weights from 0 up."
        raise InvalidInput(msg)
    return found


# --- on the driver


def total(source: Any, work: Work, *, scan: spark_sampling.Scan) -> Totals:
    """Return the totals of all rows of a Spark DataFrame.

    Raises
    ------
    InvalidInput
        The rows are not those of the scan, or a block of them breaks a rule.
    """
    columns = len(source.columns)
    with _sent(source, work) as given:

        def run(batches: Iterator[Any]) -> bytes | None:
            return _part(batches, given if isinstance(given, bytes) else given.value, columns=columns)

        parts = replies(source, run, merge=_merged if scan.parts > MERGE_AT else None, parts=scan.parts)
    whole = _merged(parts)
    rows, totals = RowSum.from_bytes(whole[:SUM_BYTES]), from_bytes(whole[SUM_BYTES:])
    if rows != scan.rows or totals.rows != rows.rows:
        msg = (
            f"Argument X must have the same rows at every pass; {scan.rows.rows:,} rows were counted first and "
            f"{rows.rows:,} explained, with another content; write it to a table first, or persist it (X.persist())."
        )
        raise InvalidInput(msg)
    return totals


def _merged(parts: list[bytes]) -> bytes:
    """Return the summary of several partitions, merged in pairs: the rounding does not grow with their number."""
    found = [(RowSum.from_bytes(part[:SUM_BYTES]), from_bytes(part[SUM_BYTES:])) for part in parts]
    while len(found) > 1:
        pairs = [(a[0] + b[0], merge(a[1], b[1])) for a, b in zip(found[::2], found[1::2], strict=False)]
        found = pairs + found[len(found) - len(found) % 2 :]
    rows, totals = found[0]
    return rows.to_bytes() + to_bytes(totals)


@contextmanager
def _sent(source: Any, work: Work) -> Iterator[Any]:
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
    sent = source.sparkSession.sparkContext.broadcast(data)
    try:
        yield sent
    finally:
        sent.destroy()


def _record(scan: spark_sampling.Scan, columns: list[str]) -> dict[str, Any]:
    """Return what the snapshot says of all rows."""
    return {"rows": scan.rows.rows, "digest": scan.rows.digest(columns), "algorithm": ALGORITHM}


def _of_sample(explanation: Explanation, taken: Sample) -> Explanation:
    """Say that everything is of the sample."""
    rows, all_rows = len(taken.frame), taken.scan.rows.rows
    message = (
        f"{rows:,} of the {all_rows:,} rows of the Spark DataFrame are explained: a random sample, drawn by their content. "
        "Only exact values of trees and linear models are added up over all rows, and not with max_rows."
    )
    caveat = Caveat(code="rows_sampled", section=SECTION, message=message)
    return replace(explanation, caveats=(caveat, *explanation.caveats))


def _of_all(explanation: Explanation, plan: Plan, totals: Totals) -> Explanation:
    """Return the sample's explanation with the numbers of all rows, where every row's values sum to its output."""
    config, few = explanation.config, len(explanation.subject.X)
    if totals.broken:
        text = (
            f"The values of {totals.broken:,} of {totals.rows:,} rows do not sum to the output (error up to "
            f"{totals.error:.2g}), so that all numbers are of a sample of {few:,} rows, whose values do."
        )
        said = Caveat(code="rows_not_additive", section="attributions", message=text, degrades=True)
        return replace(explanation, caveats=(*explanation.caveats, said))
    artifacts = overlay(explanation.artifacts, plan, totals, config=config)
    return replace(
        explanation,
        artifacts=artifacts,
        caveats=caveats(
            explanation.caveats, artifacts, plan, totals, config=config, drawn="drawn by their content"
        ),
        counted=totals.rows,
    )
