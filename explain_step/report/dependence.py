"""How the inputs act: the finding and the tables of the dependence section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from explain_step.report.context import PageContext
from explain_step.report.format import Name, Part, Text, clean, listing, number, plural, tidy
from explain_step.report.importance import overall
from explain_step.report.sections import Details, Section, absent, made, present
from explain_step.report.sentences import sentence, spelled
from explain_step.report.tables import (
    Column,
    Labels,
    Table,
    infer_columns,
    interval_column,
    largest,
    make_table,
)
from explain_step.types import Artifact

TITLE = "How the inputs act"
IN_FINDING = 5
OVER_OUTPUTS = 3
"""Inputs that are described for each of several outputs."""
MAX_OUTPUTS = 4
MAX_ROWS = 240
MAX_PAIRS = 15
CURVE = (
    Column(title="Value", source="shown", kind="text"),
    Column(title="Contribution", source="value", kind="signed"),
    interval_column("value"),
    Column(title="Rows", source="count", kind="count"),
)
VERBS = {
    "rises": "rise with",
    "mostly rises": "mostly rise with",
    "falls": "fall with",
    "mostly falls": "mostly fall with",
    "turns": "go up and down along",
    "levels": "differ between the levels of",
    "flat": "do not change with",
}
ALONG = {
    "rises": "rise for",
    "mostly rises": "mostly rise for",
    "falls": "fall for",
    "mostly falls": "mostly fall for",
    "turns": "go up and down for",
    "levels": "differ between levels for",
    "flat": "do not change for",
}
"""The same of one input for several outputs."""


def section(context: PageContext, *, labels: Labels) -> Section:
    """Return the section."""
    artifact, pairs = present(context, "dependence"), present(context, "interactions")
    if artifact is None:
        return absent(context, "dependence", id="dependence", title=TITLE)
    artifact = replace(artifact, table=_dated(artifact))
    order = _order(context)
    finding = sentences(artifact.table, order=order, labels=labels)
    details = [Details(summary="Tables of the curves", tables=tables(artifact, order=order, labels=labels))]
    if pairs is not None:
        finding = (*finding, *interactions(pairs.table, labels=labels))
        details.append(Details(summary="Table of interactions", tables=(_pairs(pairs, labels=labels),)))
    return Section(
        id="dependence",
        title=TITLE,
        finding=finding,
        details=tuple(details),
        made=(*made(artifact, pairs), *_texts(artifact, labels=labels), *_excluded(artifact, labels=labels)),
    )


def _dated(artifact: Artifact) -> pd.DataFrame:
    """Return the table with the points of date columns, which are days since 1970, as dates in ``date``."""
    features = artifact.meta.get("features")
    kinds = features if isinstance(features, Mapping) else {}
    dates = [f for f, meta in kinds.items() if isinstance(meta, Mapping) and meta.get("kind") == "datetime"]
    days = pd.to_numeric(artifact.table["x"], errors="coerce").where(artifact.table["feature"].isin(dates))
    text = (pd.Timestamp(0) + pd.to_timedelta(days.dropna().round(), unit="D")).dt.strftime("%Y-%m-%d")
    return artifact.table.assign(date=text.astype(object).reindex(days.index).where(days.notna(), None))


def _texts(artifact: Artifact, *, labels: Labels) -> tuple[Text, ...]:
    """Return the leading inputs that are free text, and what stands for them."""
    features = artifact.meta.get("features")
    found = features.items() if isinstance(features, Mapping) else ()
    return tuple(
        (labels.of(name), f", by {clean(meta['by'])}: {sentence(meta.get('curves', ''))}")
        for name, meta in found
        if isinstance(meta, Mapping) and "by" in meta
    )


def _excluded(artifact: Artifact, *, labels: Labels) -> tuple[Text, ...]:
    """Return the leading inputs that have no curve, and why."""
    excluded = artifact.meta.get("excluded")
    if not isinstance(excluded, Mapping) or not excluded:
        return ()
    return tuple(("No curve of ", labels.of(name), f": {clean(why)}.") for name, why in excluded.items())


def _order(context: PageContext) -> list[str]:
    artifact = present(context, "importance")
    return [] if artifact is None else list(map(str, overall(artifact.table)["feature"]))


def attribution_curves(
    table: pd.DataFrame, *, order: Sequence[str], output: str | None = None
) -> dict[str, pd.DataFrame]:
    """Return the mean attribution along each input for one output (the first), in order of importance."""
    wanted = table["output"].iloc[0] if output is None else output
    mine = table[(table["output"] == wanted) & (table["curve"] == "shap")]
    mine = mine.assign(shown=_shown(mine))
    known = list(dict.fromkeys(map(str, mine["feature"])))
    names = [f for f in order if f in set(known)] + [f for f in known if f not in set(order)]
    return {name: mine[mine["feature"] == name] for name in names}


def _shown(table: pd.DataFrame) -> list[str]:
    """Return the value of each point for readers: the level's name, the date, or the number."""
    blank = [None] * len(table)
    named = [table[name].tolist() if name in table.columns else blank for name in ("level", "date")]
    return [
        next((text for text in texts if isinstance(text, str)), tidy(x))
        for *texts, x in zip(*named, table["x"], strict=True)
    ]


def sentences(table: pd.DataFrame, *, order: Sequence[str], labels: Labels) -> tuple[Text, ...]:
    """Return how contributions go along the leading inputs, and from where to where for the first one."""
    curves = attribution_curves(table, order=order)
    if not curves:
        return ()
    if table["output"].nunique() > 1:
        return _over_outputs(table, order=order, labels=labels)
    by_course: dict[str, list[Name]] = {}
    for feature, curve in list(curves.items())[:IN_FINDING]:
        by_course.setdefault(course(curve), []).append(labels.of(feature))
    parts: list[Part] = []
    for k, (kind, names) in enumerate(by_course.items()):
        link = "" if k == 0 else "; and they " if k == len(by_course) - 1 > 1 else "; they "
        parts += [link, f"{VERBS[kind]} ", *listing(names)]
    first = next(iter(curves))
    return (("Contributions ", *parts, "."), *_ends(curves[first], feature=labels.of(first)))


def outputs_of(table: pd.DataFrame) -> list[str]:
    """Return the outputs that are described, in the order of the table."""
    return [str(o) for o in dict.fromkeys(table["output"])][:MAX_OUTPUTS]


def _over_outputs(table: pd.DataFrame, *, order: Sequence[str], labels: Labels) -> tuple[Text, ...]:
    """Return for each of the leading inputs how contributions go along it for which outputs."""
    shown, count = outputs_of(table), int(table["output"].nunique())
    curves = {output: attribution_curves(table, order=order, output=output) for output in shown}
    found: list[Text] = []
    for feature in list(curves[shown[0]])[:OVER_OUTPUTS]:
        by_course: dict[str, list[Name]] = {}
        for output in shown:
            if feature in curves[output]:
                by_course.setdefault(course(curves[output][feature]), []).append(Name(output))
        parts: list[Part] = []
        for k, (kind, names) in enumerate(by_course.items()):
            link = "" if k == 0 else " and " if k == len(by_course) - 1 else ", "
            whom: Text = _every(count) if len(names) == count else listing(names)
            parts += [link, f"{ALONG[kind]} ", *whom]
        found.append(("Along ", labels.of(feature), " contributions ", *parts, "."))
    if count > len(shown):
        found.append((f"{plural(count - len(shown), 'more output')} in the table.",))
    return tuple(found)


def _every(count: int) -> Text:
    return ("both outputs" if count == 2 else f"all {spelled(count)} outputs",)


def course(curve: pd.DataFrame) -> str:
    """Return how a curve goes: a key of `VERBS`."""
    values = curve["value"].dropna()
    if len(values) < 2 or np.ptp(values.to_numpy(dtype=float)) == 0:
        return "flat"
    if _is_levels(curve):
        return "levels"
    line = _line(curve)
    return trend(line["value"].to_numpy(dtype=float)) or "turns" if len(line) > 1 else "flat"


def _is_levels(curve: pd.DataFrame) -> bool:
    """Return whether a curve's values are levels: named ones (besides missing), or text that is no number."""
    if "level" in curve.columns:
        named = curve["level"].notna()
        return bool(named.sum() > (~named).sum())
    return bool(pd.to_numeric(curve["x"], errors="coerce").isna().mean() > 0.5)


def _line(curve: pd.DataFrame) -> pd.DataFrame:
    """Return the numeric points of a curve from left to right; missing values stand off the curve."""
    at = pd.to_numeric(curve["x"], errors="coerce")
    if "level" in curve.columns:
        at = at.where(curve["level"].isna())
    return curve.assign(at=at).dropna(subset=["at", "value"]).sort_values("at", kind="stable")


def trend(values: Any) -> str:
    """Return ``rises``, ``mostly falls``, … from net change over total variation; empty when the curve turns.

    Examples
    --------
    >>> trend([0.0, 0.1, 0.3]), trend([0.0, 0.3, 0.25]), trend([0.0, 1.0, 0.0])
    ('rises', 'mostly rises', '')
    """
    steps = np.diff(np.asarray(values, dtype=float))
    total = float(np.abs(steps).sum())
    net = float(steps.sum()) / total if total else 0.0
    verb = "rises" if net > 0 else "falls"
    return verb if abs(net) >= 0.95 else f"mostly {verb}" if abs(net) >= 0.6 else ""


def _ends(curve: pd.DataFrame, *, feature: Name) -> tuple[Text, ...]:
    """Return where the first input's contribution is lowest and highest, or begins and ends."""
    kind = course(curve)
    known = curve.dropna(subset=["value"])
    sure = known.dropna(subset=["ci_low", "ci_high"])  # the most extreme level is often one with a row or two
    known = sure if len(sure) > 1 else known
    if kind == "flat":
        return ()
    if kind in ("levels", "turns"):
        low, high = largest(known, "value", smallest=True), largest(known, "value")
        spots = [
            (Name(str(r["shown"])) if kind == "levels" else str(r["shown"]), _signed(r)) for r in (low, high)
        ]
        start: Text = ("Along ", feature, " they are lowest at ", spots[0][0], f" ({spots[0][1]})")
        return ((*start, " and highest at ", spots[1][0], f" ({spots[1][1]})."),)
    line = _line(curve)
    first, last = line.iloc[0], line.iloc[-1]
    text = f" they go from {_signed(first)} at {first['shown']} to {_signed(last)} at {last['shown']}."
    return (("Along ", feature, text),)


def _signed(row: Any) -> str:
    return number(row["value"], sign=True)


def interactions(table: pd.DataFrame, *, labels: Labels) -> tuple[Text, ...]:
    """Return the strongest pair of each output, or that none stands out."""
    if "output" not in table.columns or table["output"].nunique() == 1:
        pair = _strongest(table, labels=labels)
        if pair is None:
            return () if not table["strength"].notna().any() else (NO_PAIR,)
        return ((f"The strongest interaction{_qualified(table)} is between ", *pair, "."),)
    by_pair: dict[Text | None, list[Name]] = {}
    for output in outputs_of(table):
        mine = table[table["output"] == output]
        by_pair.setdefault(_strongest(mine, labels=labels), []).append(Name(output))
    quiet, count = by_pair.pop(None, []), int(table["output"].nunique())
    if not by_pair:
        return (NO_PAIR,) if len(quiet) == count else ()
    parts: list[Part] = []
    for k, (pair, names) in enumerate(by_pair.items()):
        assert pair is not None  # taken out above
        whom = _every(count) if len(names) == count else listing(names)
        parts += [", " if k else "", "between ", *pair, " for ", *whom]
    none: Text = ("; for ", *listing(quiet), " none stands out from chance") if quiet else ()
    return ((f"The strongest interaction{_qualified(table)} is ", *parts, *none, "."),)


NO_PAIR: Text = ("No interaction between two inputs stands out from chance.",)


def _strongest(table: pd.DataFrame, *, labels: Labels) -> Text | None:
    """Return the strongest pair of one output of those that stand out."""
    found = _standing_out(table)
    if found.empty:
        return None
    top = largest(found, "strength")
    return (labels.of(top["feature_a"]), " and ", labels.of(top["feature_b"]))


def _standing_out(table: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs whose interval excludes zero, or has no lower end."""
    known = table[table["strength"].notna()]
    if "ci_low" not in known.columns:
        return known
    return known[known["ci_low"].isna() | (known["ci_low"] > 0)]


def _qualified(table: pd.DataFrame) -> str:
    """Return the words that are needed where a pair with a wide interval comes before the one that is named."""
    parts = [part for _, part in table.groupby("output")] if "output" in table.columns else [table]
    named = [(part["strength"].max(), _standing_out(part)["strength"].max()) for part in parts]
    return " that stands out from chance" if any(top > found for top, found in named) else ""


def _pairs(artifact: Artifact, *, labels: Labels) -> Table:
    one = "output" in artifact.table.columns and artifact.table["output"].nunique() == 1
    columns = infer_columns(artifact.table, hide=("output", "n") if one else ("n",))
    ordered = artifact.table.sort_values("strength", ascending=False, kind="stable")
    return make_table(
        ordered,
        columns,
        caption=("Interactions between inputs, the strongest first",),
        labels=labels,
        file="interactions.parquet",
        limit=MAX_PAIRS,
    )


def tables(artifact: Artifact, *, order: Sequence[str], labels: Labels) -> tuple[Table, ...]:
    """Return the mean contribution along each leading input; the stored table has every curve."""
    out: list[Table] = []
    used = 0
    several = artifact.table["output"].nunique() > 1
    curves = {
        output: attribution_curves(artifact.table, order=order, output=output)
        for output in outputs_of(artifact.table)
    }
    names = dict.fromkeys(feature for found in curves.values() for feature in found)
    for feature, output in ((f, o) for f in names for o in curves if f in curves[o]):
        curve = curves[output][feature]
        if out and used + len(curve) > MAX_ROWS:
            break
        used += len(curve)
        of: Text = (", ", Name(output)) if several else ()
        out.append(
            make_table(
                curve,
                CURVE,
                caption=(labels.of(feature), *of),
                labels=labels,
                absent="too few rows",
                file="dependence.parquet",
            )
        )
    return tuple(out)
