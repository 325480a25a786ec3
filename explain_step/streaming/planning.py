"""From the explanation of a sample to the plan of what is counted of all rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from explain_step import privacy
from explain_step.artifacts import segment_rules, segments
from explain_step.artifacts.segment_cells import SECTION, metric_of, view_of
from explain_step.artifacts.segment_rules import Partition
from explain_step.artifacts.segment_tests import Shuffled, shuffled
from explain_step.config import Config, SegmentDeclaration
from explain_step.errors import InvalidInput
from explain_step.metrics import choose_metrics
from explain_step.seeds import Seeds
from explain_step.streaming.measures import measure_of
from explain_step.streaming.plan import OUTPUT, Curve, Cut, Measure, Plan, Segment, curve_codes, cut_codes
from explain_step.ties import just_above
from explain_step.types import Artifact, Attributions, IntArray, Subject

MOST_CELLS = 1_000_000
"""Combinations of levels of a segment's parts; a segment of more keeps the sample's numbers."""


def plan_of(
    subject: Subject,
    attributions: Attributions,
    artifacts: Sequence[Artifact],
    *,
    config: Config,
    cut: tuple[Subject, Attributions] | None = None,
    measured: int | None = None,
) -> Plan:
    """Return what is to be counted of all rows, so that the sample's tables can be given for all of them.

    Parameters
    ----------
    subject : Subject
        The sample: explained in the usual way.
    attributions : Attributions
        Exact, of every row of the sample.
    artifacts : sequence of Artifact
        What was built from them.
    config : Config
    cut : tuple of Subject and Attributions, optional
        What the segments were made of: all rows, with the sample's attributions. Default: the sample.
    measured : int, optional
        The number of all rows, where their performance is to be summed too.

    Raises
    ------
    InvalidInput
        The values are estimated: their noise does not average out as rows do.
    """
    if attributions.standard_error is not None or not attributions.method.exact:
        msg = "Argument attributions must be exact; a plan adds values of many rows, and noise would be added with them."
        raise InvalidInput(msg)
    tables = {artifact.name: artifact for artifact in artifacts}
    whole, known = cut or (subject, attributions)
    cuts, kept = _segments(whole, known, tables.get("segments"), config=config)
    curves, others = _curves(subject, tables.get("dependence"))
    return Plan(
        features=attributions.feature_names,
        outputs=attributions.output_names,
        output_space=attributions.output_space,
        scale=_scale(subject, attributions),
        views=_views(tables, attributions.feature_names),
        pairs=_pairs(subject, attributions, config=config),
        segments=tuple(cuts),
        curves=tuple(curves),
        weighted=subject.weights is not None,
        seed=config.seed,
        sample_rows=len(subject.X),
        measured_rows=len(whole.X),
        kept=(*kept, *others),
        measure=None if measured is None else _measure(subject, config=config, rows=measured),
    )


def measuring_plan(
    subject: Subject,
    attributions: Attributions,
    artifacts: Sequence[Artifact],
    *,
    config: Config,
    measured: int,
) -> Plan:
    """Return what is to be counted of all rows for performance alone; see `plan_of`. Attributions may be estimated."""
    tables = {artifact.name: artifact for artifact in artifacts}
    cuts, kept = _segments(subject, attributions, tables.get("segments"), config=config)
    return Plan(
        features=attributions.feature_names,
        outputs=attributions.output_names,
        output_space=attributions.output_space,
        scale=(),
        views=(),
        pairs=(),
        segments=tuple(cuts),
        curves=(),
        weighted=subject.weights is not None,
        seed=config.seed,
        sample_rows=len(subject.X),
        measured_rows=len(subject.X),
        kept=tuple(kept),
        measure=_measure(subject, config=config, rows=measured),
    )


def _measure(subject: Subject, *, config: Config, rows: int) -> Measure | None:
    chosen = choose_metrics(config.metrics, subject.model, subject.response) if subject.y is not None else ()
    return measure_of(subject, chosen, rows=rows)


def shuffled_losses(subject: Subject, *, config: Config) -> Shuffled | None:
    """Return the losses of the sample in shuffled orders, for the first metric; None where it is no mean over rows."""
    metric = metric_of(subject, config=config)
    return (
        None
        if metric is None
        else shuffled(metric, subject, rng=Seeds(config.seed).rng(SECTION, "by chance"))
    )


def _scale(subject: Subject, attributions: Attributions) -> tuple[float, ...]:
    """Return what sizes are divided by before outputs are averaged, as the importance table does it."""
    k = len(attributions.output_names)
    if attributions.output_space != "prediction":
        return (1.0,) * k
    size = np.average(np.abs(attributions.values).sum(axis=1), axis=0, weights=subject.weights)
    return tuple(float(v) if v > 0 else 1.0 for v in size)


def _pairs(subject: Subject, attributions: Attributions, *, config: Config) -> tuple[tuple[int, int], ...]:
    names = {name: i for i, name in enumerate(attributions.feature_names)}
    outputs = {name: i for i, name in enumerate(attributions.output_names)}
    view = view_of(subject, attributions, config=config)
    return tuple((outputs[output], names[feature]) for output, feature in view.pairs)


def _views(tables: Mapping[str, Artifact], features: Sequence[str]) -> Any:
    found: list[Any] = [("feature", tuple(features), tuple((j,) for j in range(len(features))))]
    for label in ("group", "cluster"):
        artifact = tables.get(f"importance_{label}s")
        if artifact is None:
            continue
        rows = artifact.table.drop_duplicates(label)
        sets = tuple(tuple(features.index(m) for m in json.loads(text)) for text in rows["members"])
        found.append((label, tuple(map(str, rows[label])), sets))
    return tuple(found)


# --- segments


def _segments(
    subject: Subject, attributions: Attributions, artifact: Artifact | None, *, config: Config
) -> tuple[list[Segment], list[str]]:
    """Return the segments as rules, and the names of those that no rule gives."""
    if artifact is None:
        return [], []
    found, kept = [], []
    declared = {segment_rules.name_of(d): d for d in config.segments}
    for p in segments.partitions(subject, attributions, config=config)[0]:
        made = _segment(p, declared.get(p.name, p.name), subject, config=config)
        found.extend([] if made is None else [made])
        kept.extend([p.name] if made is None else [])
    return found, kept


def _segment(
    p: Partition, declaration: SegmentDeclaration, subject: Subject, *, config: Config
) -> Segment | None:
    """Return a partition as a rule that gives the sample's rows the same levels; None where there is none."""
    frame, output = subject.frame, subject.response.output
    parts = (declaration,) if isinstance(declaration, str) else tuple(dict.fromkeys(declaration))
    if p.name.startswith(segments.BY_OUTPUT) and p.name not in frame.columns and not p.columns:
        cuts: tuple[Cut, ...] = (
            Cut(
                kind="output",
                source=OUTPUT,
                edges=(float(just_above(np.median(output[:, 0]))),),
                levels=p.levels,
            ),
        )
    else:
        cuts = tuple(_cut(part, frame, config=config) for part in parts)
    sizes = [len(cut.levels) + 1 for cut in cuts]
    if np.prod(sizes, dtype=np.float64) > MOST_CELLS:
        return None
    codes = [cut_codes(cut, frame, output=output) for cut in cuts]
    flat = np.unique(np.ravel_multi_index((*codes, p.codes), (*sizes, len(p.levels))))
    cells = np.stack(np.unravel_index(flat, (*sizes, len(p.levels))), axis=1)
    if len(np.unique(flat // len(p.levels))) < len(cells):  # one combination, several levels
        return None
    pooled = [i for i, level in enumerate(p.levels) if level in (privacy.OTHER, segment_rules.OTHER_CELLS)]
    return Segment(
        name=p.name,
        levels=p.levels,
        cuts=cuts,
        cells=tuple(tuple(int(v) for v in cell) for cell in cells),
        rest=pooled[-1] if pooled else None,
        origin=p.origin,
        columns=tuple(sorted(p.columns)),
        margins=p.margins,
    )


def _cut(text: str, frame: pd.DataFrame, *, config: Config) -> Cut:
    if text not in frame.columns:
        return Cut(kind="expression", source=text, levels=(segment_rules.YES, segment_rules.NO))
    kind, edges = segment_rules.rule(frame[text], config=config)
    if kind in ("numbers", "days"):
        levels = (*segment_rules.bin_labels(edges, kind=kind), privacy.MISSING)
    else:
        levels = segment_rules.cut_column(frame[text], config=config)[0]
    return Cut(kind=kind, source=text, edges=tuple(map(float, edges)), levels=levels)


# --- curves


def _curves(subject: Subject, artifact: Artifact | None) -> tuple[list[Curve], list[str]]:
    """Return the curves as rules that count the sample's rows alike, and the features for which none does."""
    if artifact is None:
        return [], []
    table = artifact.table[artifact.table["output"] == artifact.table["output"].iloc[0]]
    found, kept = [], []
    for feature, part in table.groupby("feature", sort=False):
        numeric = artifact.meta["features"][feature]["kind"] != "levels"
        curve = (_numeric if numeric else _levels)(str(feature), part)
        codes = curve_codes(curve, subject.X[feature])[0]
        if _counts_alike(curve, codes, part):
            found.append(curve)
        else:
            kept.append(str(feature))
    return found, kept


def _numeric(feature: str, part: pd.DataFrame) -> Curve:
    grid = part.loc[part["curve"] == "pdp", "x"].to_numpy(dtype=np.float64)
    bins = part[(part["curve"] == "shap") & part["level"].isna()]
    low, high = (bins[name].to_numpy(dtype=np.float64) for name in ("x_low", "x_high"))
    density = part[part["curve"] == "density"]
    edges = [*density["x_low"], *density["x_high"].iloc[-1:]]
    ends: tuple[int, ...] = ()
    if not np.array_equal(low, high):
        ends = tuple(int(i) for i in np.searchsorted(grid, np.append(low, high[-1:])))
    return Curve(feature=feature, grid=tuple(map(float, grid)), ends=ends, density=tuple(map(float, edges)))


def _levels(feature: str, part: pd.DataFrame) -> Curve:
    names = part.loc[part["curve"] == "shap", "level"]
    return Curve(feature=feature, levels=tuple(map(str, names)))


def _counts_alike(curve: Curve, codes: IntArray, part: pd.DataFrame) -> bool:
    """Return whether the rule's counts are the table's, so that all rows are counted as the sample was."""
    shap = part[part["curve"] == "shap"]
    stated = shap["count"].to_numpy(dtype=np.float64)[: curve.groups]
    return bool(np.array_equal(np.bincount(codes, minlength=curve.groups)[: curve.groups], stated))
