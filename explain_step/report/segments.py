"""Where groups differ: the finding and the tables of the segments section."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from explain_step.report.context import PageContext
from explain_step.report.format import Name, Text, is_number, number, plural, tidy
from explain_step.report.sections import Details, Section, absent, made, present
from explain_step.report.sentences import capital, metric_words, sentence, spelled
from explain_step.report.tables import (
    Column,
    Labels,
    Table,
    column,
    infer_columns,
    interval_column,
    largest,
    make_table,
)
from explain_step.types import Artifact

TITLE = "Where groups differ"
SIGNIFICANT = 0.05
ALL, GAP = "(all rows)", "(gap)"
RATES = ("selection_rate", "tpr", "fpr")
MAX_DIFFERENCES = 20
WHOLE = 48
"""Longest name with its level that stands as one."""
BIN = re.compile(r"\[([^,\[\]]+), ([^,\[\]]+)\)")
"""Level of a numeric column: its lower end belongs to it."""
GROUP = Column(title="Group", source="segment", kind="name")
LEVEL = Column(title="Level", source="level", kind="text")


def section(context: PageContext, *, labels: Labels) -> Section:
    """Return the section."""
    artifact, rates = present(context, "segments"), present(context, "segment_rates")
    searched = present(context, "segment_search")
    if artifact is None:
        return absent(context, "segments", id="segments", title=TITLE)
    found = [("Table of groups", groups(artifact, labels=labels)), ("Table of decisions", None), ("", None)]
    found[1] = ("Table of decisions by group", decisions(rates, labels=labels) if rates is not None else None)
    found[2] = ("Table of differences in importance", differences(artifact, labels=labels))
    found.append(
        ("Groups found by search", _searched(searched, labels=labels) if searched is not None else None)
    )
    finding = [*performance_sentences(artifact.table, labels=labels)]
    finding += rate_sentences(rates.table, labels=labels) if rates is not None else []
    finding += importance_sentences(artifact.table, labels=labels)
    finding += [(c.message,) for c in context.caveats if c.code == "no_segment"]
    return Section(
        id="segments",
        title=TITLE,
        finding=tuple(finding),
        details=tuple(Details(summary=title, tables=(table,)) for title, table in found if table is not None),
        made=(*made(artifact, rates, searched), *_withheld(artifact)),
    )


def _withheld(artifact: Artifact) -> tuple[Text, ...]:
    """Return the rule of withholding where it was needed."""
    rule = artifact.meta.get("withheld")
    used = artifact.meta.get("withheld_levels")
    return ((sentence(rule),),) if isinstance(rule, str) and used else ()


def segment_name(row: Any, *, labels: Labels, level: str | None = None) -> Text:
    """Return a segment and its level: ``afam = yes``; an expression that holds is shown alone."""
    name, value = labels.of(row["segment"]).text, str(row["level"] if level is None else level)
    bin_ = BIN.fullmatch(value)
    if bin_:
        return _with_level(name, f"from {bin_[1]} to below {bin_[2]}")
    if value.startswith("below ") or value.endswith(" or more"):
        return _with_level(name, value)
    if any(sign in name for sign in "<>=") and value.lower() in ("yes", "true"):
        return (Name(name),)
    if any(sign in name for sign in "<>=") and value.lower() in ("no", "false"):
        return ("not ", Name(name))
    return _with_level(name, f"= {tidy(value)}")


def _with_level(name: str, level: str) -> Text:
    """Return a name and its level as one name; apart where they are long, so that both are shortened."""
    whole = f"{name} {level}"
    return (Name(whole),) if len(whole) <= WHOLE else (Name(name), " ", Name(level))


def performance_sentences(table: pd.DataFrame, *, labels: Labels) -> list[Text]:
    """Return the range of performance over the groups, and whether any difference stands out."""
    cells = table.drop_duplicates(["segment", "level", "metric"])
    known = cells[cells["metric_value"].notna() & (cells["segment"] != ALL)]
    if len(known) < 2:
        return []
    known = known[known["metric"] == known["metric"].iloc[0]]
    low, high = largest(known, "metric_value", smallest=True), largest(known, "metric_value")
    ends = [
        (
            f"{number(r['metric_value'])} (",
            *segment_name(r, labels=labels),
            f", {plural(int(r['n']), 'row')})",
        )
        for r in (low, high)
    ]
    metric = capital(metric_words(low["metric"]))
    groups = plural(len(known), "group")
    range_: Text = (f"{metric} runs from ", *ends[0], " to ", *ends[1], f" over {groups}")
    if number(low["metric_value"]) == number(high["metric_value"]):
        range_ = (f"{metric} is {number(low['metric_value'])} in each of {groups}",)
    if "metric_p_adjusted" not in known.columns or not known["metric_p_adjusted"].notna().any():
        return [(*range_, ".")]
    clear = known[known["metric_p_adjusted"] < SIGNIFICANT]
    if clear.empty:
        return [(*range_, "; no difference in it stands out from chance.")]
    most = largest(clear.assign(size=clear["metric_difference"].abs()), "size")
    where: Text = ("; it stands out in ", *segment_name(most, labels=labels), ".")
    if len(clear) > 1:
        named = segment_name(most, labels=labels)
        where = (f"; it stands out in {len(clear)} of them, most in ", *named, ".")
    return [(*range_, *where)]


def rate_sentences(table: pd.DataFrame, *, labels: Labels) -> list[Text]:
    """Return the widest gap in how often rows are predicted as the class."""
    if "rate" not in table.columns:
        return []
    gaps = table[(table["rate"] == "selection_rate") & (table["level"] == GAP) & table["value"].notna()]
    if gaps.empty:
        return []
    top = largest(gaps, "value")
    if is_number(top["ci_low"]) and not top["ci_low"] > 0:
        return [
            (
                "No gap in how often rows are predicted ",
                Name(str(top["output"])),
                " stands out from chance.",
            )
        ]
    size = f"{number(top['value'] * 100, digits=2)} points"
    bounds = _points(top["ci_low"], top["ci_high"])
    high = segment_name(top, labels=labels, level=str(top["high_level"]))
    low = segment_name(top, labels=labels, level=str(top["low_level"]))
    than: Text = (" than otherwise",) if low[0] == "not " else (" than for ", *low)
    head = ("Rows are predicted ", Name(str(top["output"])), f" more often by {size}{bounds} for ")
    return [(*head, *high, *than, ".")]


def _points(low: Any, high: Any) -> str:
    if not (is_number(low) and is_number(high)):
        return ""
    return f" ({number(low * 100, digits=2)} to {number(high * 100, digits=2)})"


def importance_sentences(table: pd.DataFrame, *, labels: Labels) -> list[Text]:
    """Return how many differences in importance stand out, and the largest of them."""
    tested = distinct_differences(table)
    tested = tested[tested["p_adjusted"].notna()]
    if tested.empty:
        return []
    clear = tested[tested["p_adjusted"] < SIGNIFICANT]
    many = len(tested) > 1
    if clear.empty:
        tests = f" ({len(tested):,} tested)" if many else ""
        return [(f"No difference in importance stands out from chance after adjustment{tests}.",)]
    top = largest(clear.assign(_size=clear["difference"].abs()), "_size")
    verb = "stands" if len(clear) == 1 else "stand"
    head = f"{capital(spelled(len(clear)))} of the {len(tested):,} differences in importance {verb} out after adjustment; "
    head = f"{head}the largest: " if many else "The one tested difference in importance stands out: "
    more = " weighs more in " if top["difference"] > 0 else " weighs less in "
    return [(head, labels.of(top["feature"]), more, *segment_name(top, labels=labels), " than in the rest.")]


def distinct_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Return the tested differences once each: of the two sides of a cut the positive one."""
    known = table[table["difference"].notna()]
    size = known["difference"].abs().map(lambda v: f"{v:.9e}")
    ordered = known.assign(_size=size).sort_values("difference", ascending=False, kind="stable")
    once = ordered.drop_duplicates(["segment", "output", "feature", "_size"])
    return once.sort_index().drop(columns="_size")


def _reasons(table: pd.DataFrame, other: str) -> str:
    """Return why cells have no number: the builder's own reasons where it gives some."""
    if "withheld" not in table.columns:
        return other
    found = list(dict.fromkeys(str(v) for v in table["withheld"].dropna()))
    return "; ".join([*(f"withheld: {r}" if "withh" not in r else r for r in found), other])


def _titled(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with readers' words for the builder's own marks."""
    whole = table["segment"] == ALL
    level = table["level"].astype(object).mask(whole, "").mask(table["level"] == GAP, "largest gap")
    return table.assign(segment=table["segment"].astype(object).mask(whole, "All rows"), level=level)


def groups(artifact: Artifact, *, labels: Labels) -> Table:
    """Return rows and performance of each group."""
    table = _titled(artifact.table.drop_duplicates(["segment", "level", "metric"]))
    metrics = [m for m in dict.fromkeys(table["metric"]) if isinstance(m, str) and m]
    title = capital(metric_words(metrics[0])) if len(metrics) == 1 else "Performance"
    several = (Column(title="Metric", source="metric", kind="word"),) if len(metrics) > 1 else ()
    columns = (
        *(GROUP, LEVEL, Column(title="Rows", source="n", kind="count"), *several),
        Column(title=title, source="metric_value"),
        interval_column("metric_value", low="metric_ci_low", high="metric_ci_high"),
        Column(title="Difference to the rest", source="metric_difference", kind="signed"),
        interval_column(
            "metric_difference", low="metric_difference_ci_low", high="metric_difference_ci_high"
        ),
        Column(title="Adjusted p", source="metric_p_adjusted", kind="p"),
    )
    why = _reasons(artifact.table, "not defined on these rows")
    return make_table(
        table, columns, caption=("Performance by group",), labels=labels, absent=why, file="segments.parquet"
    )


def differences(artifact: Artifact, *, labels: Labels) -> Table | None:
    """Return the differences in importance to the rest, the clearest first; None where none was tested."""
    table = distinct_differences(artifact.table)
    if table.empty:
        return None
    ranked = table.assign(_size=-table["difference"].abs()).sort_values(
        ["p_adjusted", "_size"], kind="stable"
    )
    several = (column("output"),) if ranked["output"].nunique() > 1 else ()
    columns = (
        *(GROUP, LEVEL, *several, Column(title="Input", source="feature", kind="name")),
        Column(title="Average effect", source="mean_abs_shap"),
        Column(title="Difference to the rest", source="difference", kind="signed"),
        interval_column("difference", low="difference_ci_low", high="difference_ci_high"),
        column("p_adjusted"),
    )
    return make_table(
        ranked,
        columns,
        caption=("Differences in importance to the rest, the clearest first",),
        labels=labels,
        absent="not tested",
        file="segments.parquet",
        limit=MAX_DIFFERENCES,
    )


def decisions(artifact: Artifact, *, labels: Labels) -> Table | None:
    """Return the decision rates of each group side by side."""
    table = artifact.table
    if "rate" not in table.columns:
        return None
    keys = ["output", "segment", "level"]
    wide = table.drop_duplicates(keys)[keys].reset_index(drop=True)
    for rate in RATES:
        part = table[table["rate"] == rate].drop_duplicates(keys)[[*keys, "value", "ci_low", "ci_high"]]
        wide = wide.merge(
            part.set_axis([*keys, rate, f"{rate}_low", f"{rate}_high"], axis=1), on=keys, how="left"
        )
    several = (Column(title="Class", source="output", kind="text"),) if wide["output"].nunique() > 1 else ()
    pairs = [(column(r), interval_column(r, low=f"{r}_low", high=f"{r}_high")) for r in RATES]
    columns = (*several, GROUP, LEVEL, *(c for pair in pairs for c in pair))
    name = "" if several else f" {tidy(wide['output'].iloc[0])}"
    return make_table(
        _titled(wide),
        columns,
        caption=("Share of rows predicted", Name(name) if name else " as each class", ", by group"),
        labels=labels,
        absent=_reasons(table, "not defined on these rows"),
        file="segment_rates.parquet",
    )


def _searched(artifact: Artifact, *, labels: Labels) -> Table:
    hide = (
        ("metric", "n_search", "share")
        if artifact.table.get("metric", pd.Series(dtype=object)).nunique() <= 1
        else ()
    )
    return make_table(
        artifact.table,
        infer_columns(artifact.table, hide=hide),
        caption=("Groups found on one half of the rows, measured on the other",),
        labels=labels,
        file="segment_search.parquet",
    )
