"""Explain every row of a Spark DataFrame where it is: the same engine on every executor, sums of rows to the driver.

::

    all rows ─▶ scan: count, digest ─▶ sample ─▶ compute() on the driver ─▶ plan
    all rows ─▶ executors: block ─▶ attributions ─▶ Totals per partition ─▶ merged ─▶ the sample's tables, of all rows
    all rows ─▶ executors: scores, sorted in ranges ─▶ areas under the ROC curve (`spark_areas`)

The plan, the model and the background are sent once. Each partition answers with one summary; a partition that is
computed again because a worker died answers once. The digest of the rows that were explained must be that of the rows
that were scanned, so nothing is lost, changed or counted twice without an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from explain_step import compute as compute_room
from explain_step import frames, spark_sampling
from explain_step.compute import Explanation
from explain_step.config import Config
from explain_step.config import names as quoted
from explain_step.errors import InvalidInput, NotApplicable
from explain_step.row_sums import ALGORITHM, RowSum, row_sum
from explain_step.spark_areas import areas_of
from explain_step.spark_frames import blocks, frame_of, is_spark, numbered, replies
from explain_step.spark_sampling import Sample
from explain_step.spark_work import Work, as_trained, block, data_of, engine, received, sent_to, unit_of
from explain_step.streaming import (
    SEARCH,
    Areas,
    Measured,
    Plan,
    Totals,
    caveats,
    from_bytes,
    measured_caveats,
    measured_overlay,
    measuring_plan,
    merge,
    of_block,
    overlay,
    plan_of,
    shuffled_losses,
    to_bytes,
)
from explain_step.types import Caveat

__all__ = ["compute", "is_spark"]

SECTION = "data"
PROBE_ROWS = 256
"""Rows of the sample that go to the executors with the model, to prepare the explainer."""
MERGE_AT = 200
"""Above so many partitions their summaries are first merged by executors, by the root of their number."""
SUM_BYTES = 8 + 256
SAME = "write it to a table first, or persist it (X.persist())"


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
    dtypes = _dtypes(reference, taken)
    frame = as_trained(taken.frame, dtypes)
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
    kept = {"dtypes": dtypes, "target": y, "weights": sample_weight}
    if not explanation.attributions.method.exact or config.max_rows is not None:
        return _of_sample(explanation, source, taken, **kept)
    work = work_of(explanation, taken, **kept)
    with sent_to(source, work) as given:
        try:
            totals = total(source, work, scan=taken.scan, given=given)
        except NotApplicable:  # exact by enumeration, which is for few rows
            return _of_sample(explanation, source, taken, **kept)
        known = _measured(explanation, source, work, totals, given=given)
    return _of_all(explanation, work.plan, totals, known=known)


def work_of(
    explanation: Explanation,
    taken: Sample,
    *,
    dtypes: dict[str, Any] | None = None,
    target: str | None = None,
    weights: str | None = None,
    values: bool = True,
) -> Work:
    """Return what the executors are asked for, from the explanation of the sample.

    Parameters
    ----------
    values : bool
        Whether attributions are added up; else performance alone.

    Raises
    ------
    InvalidInput
        The explanation is estimated: its noise would be added up.
    """
    subject, found = explanation.subject, explanation.attributions
    planned = plan_of if values else measuring_plan
    return Work(
        subject=subject.take(np.arange(min(PROBE_ROWS, len(subject.X)))),
        plan=planned(
            subject, found, explanation.artifacts, config=explanation.config, measured=taken.scan.rows.rows
        ),
        rows=taken.scan.rows.rows,
        dtypes=dtypes or {},
        missing=taken.missing,
        target=target,
        weights=weights,
        names=explanation.config.class_names,
        feature_perturbation=explanation.config.feature_perturbation,
        unit=1.0 if weights is None else unit_of(taken.frame[weights].astype(np.float64)),
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


def _dtypes(reference: pd.DataFrame | None, taken: Sample) -> dict[str, Any]:
    """Return how the background has what Spark has otherwise: texts as categories, booleans with missing values as such."""
    found: dict[str, Any] = {}
    for name, dtype in () if reference is None else reference.dtypes.items():
        if name not in taken.frame.columns:
            continue
        if isinstance(dtype, pd.CategoricalDtype):
            found[str(name)] = dtype
        elif pd.api.types.is_bool_dtype(dtype) and name in taken.missing and _says_yes(taken.frame[name]):
            found[str(name)] = pd.BooleanDtype()
    return found


def _says_yes(column: pd.Series[Any]) -> bool:
    return pd.api.types.infer_dtype(column, skipna=True) == "boolean"


# --- on the executors


def _part(batches: Iterator[Any], data: bytes, *, columns: list[str]) -> bytes | None:
    """Return the sum of the rows of a partition and their totals as bytes; None where it has no rows."""
    work = received(data)
    explain = engine(data)[1] if work.plan.views else None
    rows, totals = RowSum(), None
    for table in blocks(batches, columns=columns):
        rows = rows + row_sum(frame_of(table))
        frame = as_trained(frame_of(table, missing=work.missing), work.dtypes)
        own = block(work, frame)
        found = of_block(work.plan, own, None if explain is None else explain(own.X))
        totals = found if totals is None else merge(totals, found)
    return None if totals is None else rows.to_bytes() + to_bytes(totals)


# --- on the driver


def total(source: Any, work: Work, *, scan: spark_sampling.Scan, given: Any = None) -> Totals:
    """Return the totals of all rows of a Spark DataFrame.

    Parameters
    ----------
    given : object, optional
        What `spark_work.sent_to` gave, where the work was sent before.

    Raises
    ------
    InvalidInput
        The rows are not those of the scan, or a block of them breaks a rule.
    """
    if given is None:
        with sent_to(source, work) as sent:
            return total(source, work, scan=scan, given=sent)
    columns = source.columns

    def run(batches: Iterator[Any]) -> bytes | None:
        return _part(batches, data_of(given), columns=columns)

    parts = replies(numbered(source), run, merge=_merged if scan.parts > MERGE_AT else None, parts=scan.parts)
    whole = _merged(parts)
    rows, totals = RowSum.from_bytes(whole[:SUM_BYTES]), from_bytes(whole[SUM_BYTES:])
    if rows != scan.rows or totals.rows != rows.rows:
        msg = (
            f"Argument X must have the same rows at every pass; {scan.rows.rows:,} rows were counted first and "
            f"{rows.rows:,} explained, with another content; {SAME}."
        )
        raise InvalidInput(msg)
    return totals


def _measured(
    explanation: Explanation, source: Any, work: Work, totals: Totals, *, given: Any
) -> Measured | None:
    """Return the performance of all rows; None where there is none to be summed."""
    measure = work.plan.measure
    if measure is None or totals.measures is None:
        return None
    areas = None if measure.edges is None else areas_of(source, work, given)
    known = Measured(
        plan=work.plan,
        measures=totals.measures,
        areas=areas,
        model=work.subject.model,
        made=shuffled_losses(explanation.subject, config=explanation.config),
    )
    if areas is not None and not _same_weights(known, areas):
        msg = (
            f"Argument X must have the same rows at every pass; their scores came with other weights; {SAME}."
        )
        raise InvalidInput(msg)
    return known


def _same_weights(known: Measured, areas: Areas) -> bool:
    """Return whether hits and misses of the areas are those that were counted with the values."""
    model, whole = known.model, areas.whole()
    if not known.measure.classes:
        return True
    true = known.measures[0].weight[0].sum(axis=1)
    hits = true[[model.positive or 0]] if model.task == "binary" else true
    wanted = np.stack([hits, true.sum() - hits], axis=1)
    counted = np.allclose(whole.sums[:, :, 1], wanted, rtol=1e-9, atol=0.0)
    if areas.squares is None:
        return bool(counted)
    moved = np.allclose(areas.squares[-1], known.measures[0].square[0].sum(), rtol=1e-9, atol=0.0)
    return bool(counted and moved)


def _merged(parts: list[bytes]) -> bytes:
    """Return the summary of several partitions, merged in pairs: the rounding does not grow with their number."""
    found = [(RowSum.from_bytes(part[:SUM_BYTES]), from_bytes(part[SUM_BYTES:])) for part in parts]
    while len(found) > 1:
        pairs = [(a[0] + b[0], merge(a[1], b[1])) for a, b in zip(found[::2], found[1::2], strict=False)]
        found = pairs + found[len(found) - len(found) % 2 :]
    rows, totals = found[0]
    return rows.to_bytes() + to_bytes(totals)


def _record(scan: spark_sampling.Scan, columns: list[str]) -> dict[str, Any]:
    """Return what the snapshot says of all rows."""
    return {"rows": scan.rows.rows, "digest": scan.rows.digest(columns), "algorithm": ALGORITHM}


def _of_sample(explanation: Explanation, source: Any, taken: Sample, **kept: Any) -> Explanation:
    """Say that all is of the sample, but performance of all rows where the model's answers cost as little as trees' do."""
    rows, all_rows = len(taken.frame), taken.scan.rows.rows
    text = (
        f"{rows:,} of the {all_rows:,} rows of the Spark DataFrame are explained: a random sample, drawn by their content. "
        "Only exact values of trees and linear models are added up over all rows, and not with max_rows."
    )
    found, known = explanation, None
    if explanation.subject.model.family in ("tree", "linear"):
        work = work_of(explanation, taken, values=False, **kept)
        found, known = _with_performance(explanation, source, work, scan=taken.scan)
    if known is not None:
        without = ", ".join(known.unknown())
        text += " Performance, also of segments, is of all rows" + (
            f", but not {without}." if without else "."
        )
        if any(artifact.name == SEARCH for artifact in found.artifacts):
            text += " The search for groups where the model performs worse is of the sample."
    caveat = Caveat(code="rows_sampled", section=SECTION, message=text)
    return replace(found, caveats=(caveat, *found.caveats))


def _with_performance(
    explanation: Explanation, source: Any, work: Work, *, scan: spark_sampling.Scan
) -> tuple[Explanation, Measured | None]:
    """Return the sample's explanation with the performance of all rows, where there is any."""
    if work.plan.measure is None:
        return explanation, None
    with sent_to(source, work) as given:
        totals = total(source, work, scan=scan, given=given)
        known = _measured(explanation, source, work, totals, given=given)
    if known is None:
        return explanation, None
    config = explanation.config
    artifacts = measured_overlay(explanation.artifacts, work.plan, totals, known, config=config)
    said = measured_caveats(explanation.caveats, artifacts, work.plan, known, config=config)
    return replace(explanation, artifacts=artifacts, caveats=said), known


def _of_all(explanation: Explanation, plan: Plan, totals: Totals, *, known: Measured | None) -> Explanation:
    """Return the sample's explanation with the numbers of all rows, where every row's values sum to its output."""
    config, few = explanation.config, len(explanation.subject.X)
    if totals.broken:
        text = (
            f"The values of {totals.broken:,} of {totals.rows:,} rows do not sum to the output (error up to "
            f"{totals.error:.2g}), so that all numbers are of a sample of {few:,} rows, whose values do."
        )
        said = Caveat(code="rows_not_additive", section="attributions", message=text, degrades=True)
        return replace(explanation, caveats=(*explanation.caveats, said))
    artifacts = overlay(explanation.artifacts, plan, totals, config=config, known=known)
    return replace(
        explanation,
        artifacts=artifacts,
        caveats=caveats(
            explanation.caveats,
            artifacts,
            plan,
            totals,
            config=config,
            drawn="drawn by their content",
            known=known,
        ),
        counted=totals.rows,
    )
