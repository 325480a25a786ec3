"""The sections of the page, one function each: finding, tables, how it was made; or why the section could not be made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from explain_step.report import sentences
from explain_step.report.context import PageContext
from explain_step.report.format import MISSING, Name, Text, clean, is_number, number, plural, tidy
from explain_step.report.limits import members_of
from explain_step.report.quality import (
    fidelity,
    fidelity_finding,
    pair,
    scores_finding,
    scores_table,
    sources,
)
from explain_step.report.tables import (
    Column,
    Labels,
    Table,
    column,
    infer_columns,
    interval_column,
    make_table,
    words,
)
from explain_step.types import Artifact

DIGEST = re.compile(r"(?:[a-z0-9]+[:-])?[0-9a-f]{32,128}")
SHORT_DIGEST = 12
MAX_EXAMPLES = 12
MAX_CURVE_ROWS = 240
TOP_CONTRIBUTIONS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """Tables behind one line that opens."""

    summary: str
    tables: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One line of a list of facts; ``full`` is the whole value where ``value`` is shortened."""

    label: str
    value: Text
    full: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One section of the page. ``absent`` says why there is nothing else in it."""

    id: str
    title: str
    finding: tuple[Text, ...] = ()
    details: tuple[Details, ...] = ()
    made: tuple[Text, ...] = ()
    facts: tuple[Fact, ...] = ()
    absent: str = ""


def explained(context: PageContext, *, labels: Labels) -> Section:
    """Return what was explained, in plain words."""
    q = context.quantity
    inputs = _input_count(context)
    model = clean(context.identity.get("model_class") or "")
    reads = f" reads {plural(inputs, 'input')} and" if inputs else ""
    who: Text = (
        "The model",
        *((" (", Name(model), ")") if model else ()),
        f"{reads} gives ",
        *sentences.explained(q),
        ".",
    )
    base = _base_value(context)
    start = f" ({number(base)} on average)" if base is not None else ""
    split: Text = (
        "For each row this output is split into one contribution per input. The contributions add up to the difference between the "
        f"row's output and the average output over the background{start}: {sentences.background(q)}. A positive contribution pushes "
        "the output up, a negative one down.",
    )
    detail: Text = (
        "A contribution is the interventional Shapley value: the average change of the output when the input takes the row's value, over "
        "all orders in which inputs can do so, while the inputs that have not keep the values of a background row. ",
        f"Method: {clean(q.get('method') or 'not stated')}, {'exact' if q.get('exact') else 'estimated'}; "
        f"output space: {clean(q.get('output_space') or 'not stated')}; {plural(int(q.get('rows') or 0), 'row')} explained.",
    )
    return Section(
        id="explained",
        title="What was explained",
        finding=(who, split),
        made=(detail,),
        facts=_identity(context),
    )


def _input_count(context: PageContext) -> int:
    artifact = context.artifacts.get("importance")
    return 0 if artifact is None or artifact.table.empty else int(artifact.table["feature"].nunique())


def _base_value(context: PageContext) -> float | None:
    artifact = context.artifacts.get("examples")
    if artifact is None or "base_value" not in artifact.table.columns:
        return None
    values = artifact.table["base_value"].dropna()
    one = artifact.table["output"].nunique() == 1 and values.nunique() == 1
    return float(values.iloc[0]) if one and is_number(values.iloc[0]) else None


def _identity(context: PageContext) -> tuple[Fact, ...]:
    titles = {
        "name": "Registered model",
        "version": "Version",
        "uri": "Address",
        "run_id": "Run",
        "model_id": "Logged model",
    }
    facts = [
        Fact(label=t, value=(Name(str(context.identity[k])),))
        for k, t in titles.items()
        if context.identity.get(k)
    ]
    binding = context.identity.get("binding")
    if binding:
        note = clean(context.identity.get("binding_note") or "")
        facts.append(
            Fact(label="Tie to the stored model", value=(f"{clean(binding)}{': ' + note if note else ''}",))
        )
    return tuple(facts)


def fidelity_section(context: PageContext) -> Section:
    """Return how closely the contributions follow the model."""
    title = "How closely this follows the model"
    best = fidelity(pair(context.scores))
    if best is None:
        reason = context.missing.get("scores") or "no score of this kind was computed"
        return Section(id="fidelity", title=title, absent=_reason(reason))
    return Section(id="fidelity", title=title, finding=fidelity_finding(best), made=sources((best,)))


def importance(context: PageContext, *, labels: Labels) -> Section:
    """Return which inputs matter."""
    title = "Which inputs matter"
    artifact = context.artifacts.get("importance")
    if artifact is None or artifact.table.empty:
        return _absent(context, "importance", title)
    table = artifact.table
    details = [Details(summary="Table of all inputs", tables=_per_output(artifact, labels=labels))]
    for name, summary in (
        ("importance_groups", "Table of declared groups"),
        ("importance_clusters", "Table of correlated inputs taken together"),
    ):
        extra = context.artifacts.get(name)
        if extra is not None and not extra.table.empty:
            details.append(
                Details(summary=summary, tables=(_set_table(extra, summary=summary, labels=labels),))
            )
    finding = sentences.importance(table, labels=labels)
    return Section(
        id="importance", title=title, finding=finding, details=tuple(details), made=_made(artifact)
    )


IMPORTANCE = (
    Column(title="Input", source="feature", kind="name"),
    column("rank"),
    column("mean_abs_shap"),
    interval_column("mean_abs_shap"),
    column("share"),
    column("mean_shap"),
    column("permutation_importance"),
    interval_column("permutation_importance", low="permutation_ci_low", high="permutation_ci_high"),
)


def _per_output(artifact: Artifact, *, labels: Labels) -> tuple[Table, ...]:
    outputs = list(dict.fromkeys(artifact.table["output"]))
    order = [outputs[-1], *outputs[:-1]]
    absent = "not measured for this input"
    return tuple(
        make_table(
            artifact.table[artifact.table["output"] == output],
            IMPORTANCE,
            caption=("Importance of inputs for ", Name(str(output))),
            labels=labels,
            absent=absent,
            file="importance.parquet",
        )
        for output in order
    )


def _set_table(artifact: Artifact, *, summary: str, labels: Labels) -> Table:
    """Return the importance of sets of inputs; a set's members stand in its row."""
    first = next((c for c in ("group", "cluster") if c in artifact.table.columns), "feature")
    table = artifact.table[artifact.table["output"] == artifact.table["output"].iloc[-1]]
    if "members" in table.columns:
        listed = [", ".join(labels.of(m).text for m in members_of(v)) for v in table["members"]]
        table = table.assign(members=listed)
    lead = Column(title="Inputs", source=first, kind="name")
    columns = (lead, Column(title="Members", source="members", kind="text"), *IMPORTANCE[1:6])
    return make_table(
        table,
        columns,
        caption=(summary.removeprefix("Table of ").capitalize(),),
        labels=labels,
        file=f"{artifact.name}.parquet",
    )


def dependence(context: PageContext, *, labels: Labels) -> Section:
    """Return how the output changes along the values of the leading inputs."""
    title = "How the inputs act"
    artifact = context.artifacts.get("dependence")
    if artifact is None or artifact.table.empty:
        return _absent(context, "dependence", title)
    table = artifact.table
    order = _importance_order(context)
    details = [Details(summary="Table of the curves", tables=_curves(artifact, labels=labels))]
    finding = sentences.dependence(table, order=order, labels=labels)
    pairs = context.artifacts.get("interactions")
    if pairs is not None and not pairs.table.empty:
        columns = infer_columns(pairs.table, hide=("output",) if pairs.table["output"].nunique() == 1 else ())
        rows = make_table(
            pairs.table,
            columns,
            caption=("Interactions between inputs",),
            labels=labels,
            file="interactions.parquet",
            limit=20,
        )
        details.append(Details(summary="Table of interactions", tables=(rows,)))
        finding = (*finding, *sentences.interactions(pairs.table, labels=labels))
    made = _made(artifact) + (_made(pairs) if pairs is not None else ())
    return Section(id="dependence", title=title, finding=finding, details=tuple(details), made=made)


def _importance_order(context: PageContext) -> list[str]:
    artifact = context.artifacts.get("importance")
    if artifact is None or artifact.table.empty:
        return []
    return list(map(str, sentences.summary_part(artifact.table)["feature"]))


CURVE = (
    Column(title="Value", source="x", kind="text"),
    Column(title="Effect", source="value", kind="signed"),
    interval_column("value"),
    Column(title="Rows", source="count", kind="count"),
)
CURVES = {
    "shap": "contribution",
    "pdp": "partial dependence",
    "ale": "accumulated local effect",
    "ice": "single rows",
}


def _curves(artifact: Artifact, *, labels: Labels) -> tuple[Table, ...]:
    """Return one table per input and curve kind for the first output; the stored table has all."""
    table = artifact.table[artifact.table["output"] == artifact.table["output"].iloc[0]]
    out: list[Table] = []
    used = 0
    for (feature, curve), part in table.groupby(["feature", "curve"], sort=False, observed=True):
        if str(curve) != "shap" or used + len(part) > MAX_CURVE_ROWS:
            continue
        used += len(part)
        caption: Text = (labels.of(feature), f": {CURVES.get(str(curve), str(curve))}")
        out.append(
            make_table(
                part,
                CURVE,
                caption=caption,
                labels=labels,
                absent="too few rows at this value",
                file="dependence.parquet",
            )
        )
    if not out:
        out = [
            make_table(
                table,
                (column("feature"), column("curve"), *CURVE),
                caption=("Curves",),
                labels=labels,
                file="dependence.parquet",
            )
        ]
    return tuple(out)


def segments(context: PageContext, *, labels: Labels) -> Section:
    """Return where the model and its explanation differ between groups of rows."""
    title = "Where groups differ"
    artifact = context.artifacts.get("segments")
    found = context.artifacts.get("segment_search")
    if artifact is None or artifact.table.empty:
        return _absent(context, "segments", title)
    details = [Details(summary="Table of groups", tables=(_groups(artifact, labels=labels),))]
    differences = _differences(artifact, labels=labels)
    if differences is not None:
        details.append(Details(summary="Table of differences in importance", tables=(differences,)))
    for name, summary in (
        ("segment_rates", "Table of decision rates"),
        ("segment_search", "Table of groups found by search"),
    ):
        extra = context.artifacts.get(name)
        if extra is not None and not extra.table.empty:
            rows = make_table(extra.table, infer_columns(extra.table, hide=_constant(extra.table)), caption=(summary.removeprefix("Table of ").capitalize(),),
                              labels=labels, absent="withheld or not defined", file=f"{name}.parquet")  # fmt: skip
            details.append(Details(summary=summary, tables=(rows,)))
    made = _made(artifact) + (_made(found) if found is not None else ())
    return Section(
        id="segments",
        title=title,
        finding=sentences.segments(artifact.table, labels=labels),
        details=tuple(details),
        made=made,
    )


def _constant(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(c for c in ("output", "metric") if c in table.columns and table[c].nunique() <= 1)


def _groups(artifact: Artifact, *, labels: Labels) -> Table:
    table = artifact.table.drop_duplicates(["segment", "level", "metric"])
    metrics = list(dict.fromkeys(m for m in table["metric"] if isinstance(m, str) and m))
    one = sentences.metric_words(metrics[0]) if len(metrics) == 1 else "Performance"
    columns = (
        Column(title="Group", source="segment", kind="name"),
        Column(title="Level", source="level", kind="text"),
        Column(title="Rows", source="n", kind="count"),
        *(() if len(metrics) == 1 else (Column(title="Metric", source="metric", kind="word"),)),
        Column(title=one[:1].upper() + one[1:], source="metric_value"),
        interval_column("metric_value", low="metric_ci_low", high="metric_ci_high"),
    )
    return make_table(
        table,
        columns,
        caption=("Performance by group",),
        labels=labels,
        absent="not defined or withheld",
        file="segments.parquet",
    )


def _differences(artifact: Artifact, *, labels: Labels) -> Table | None:
    table = artifact.table[artifact.table["difference"].notna()]
    if table.empty:
        return None
    ranked = table.assign(_size=table["difference"].abs()).sort_values(
        ["p_adjusted", "_size"], ascending=[True, False], kind="stable"
    )
    columns = (
        Column(title="Group", source="segment", kind="name"),
        Column(title="Level", source="level", kind="text"),
        Column(title="Input", source="feature", kind="name"),
        column("mean_abs_shap"),
        Column(title="Difference to the rest", source="difference", kind="signed"),
        interval_column("difference", low="difference_ci_low", high="difference_ci_high"),
        column("p_adjusted"),
    )
    return make_table(
        ranked,
        columns,
        caption=("Differences in importance, the clearest first",),
        labels=labels,
        absent="not tested",
        file="segments.parquet",
        limit=20,
    )


def examples(context: PageContext, *, labels: Labels) -> Section:
    """Return single predictions taken apart."""
    title = "Single predictions, taken apart"
    artifact = context.artifacts.get("examples")
    if artifact is None or artifact.table.empty:
        return _absent(context, "examples", title)
    table = artifact.table
    head = table.drop_duplicates("example")
    columns = (
        Column(title="Row", source="row_id", kind="text"),
        Column(title="Why chosen", source="kind", kind="word"),
        Column(title="True", source="y_true", kind="text"),
        Column(title="Predicted", source="y_pred", kind="text"),
        Column(title="Output", source="prediction"),
    )
    overview = make_table(
        head,
        columns,
        caption=("The rows shown",),
        labels=labels,
        absent="not available",
        file="examples.parquet",
    )
    parts = tuple(
        _contributions(part, labels=labels)
        for _, part in list(table.groupby("example", sort=False, observed=True))[:MAX_EXAMPLES]
    )
    details = (
        Details(summary="Table of the rows", tables=(overview,)),
        Details(summary="Tables of contributions", tables=parts),
    )
    return Section(
        id="examples", title=title, finding=sentences.examples(table), details=details, made=_made(artifact)
    )


def _contributions(part: pd.DataFrame, *, labels: Labels) -> Table:
    """Return the largest contributions of one example, per output."""
    first = part.iloc[0]
    mine = part[part["output"] == first["output"]]
    ordered = mine.reindex(mine["shap"].abs().sort_values(ascending=False, kind="stable").index)
    shown = ordered.head(TOP_CONTRIBUTIONS)
    columns = (column("feature"), column("feature_value"), column("shap"))
    which = f" ({str(first['kind']).replace('_', ' ')})"
    caption: Text = (
        ("Row ", Name(tidy(first["row_id"])), which)
        if tidy(first["row_id"]) != MISSING
        else (f"Example {tidy(first['example'])}", which)
    )
    table = make_table(shown, columns, caption=caption, labels=labels, absent="missing or withheld")
    rest = ordered["shap"].iloc[TOP_CONTRIBUTIONS:]
    notes: list[Text] = [
        (f"Starts from {number(first['base_value'])}, arrives at {number(first['prediction'])}.",)
    ]
    if len(rest):
        notes.append(
            (f"{plural(len(rest), 'other input')} together: {number(float(rest.sum()), sign=True)}.",)
        )
    return Table(caption=table.caption, columns=table.columns, rows=table.rows, notes=(*notes, *table.notes))


def quality(context: PageContext) -> Section:
    """Return every score beside its control."""
    title = "Tests of this explanation"
    pairs = pair(context.scores)
    if not pairs:
        return _absent(context, "scores", title, id="quality")
    details = (Details(summary="Table of scores", tables=(scores_table(pairs),)),)
    return Section(
        id="quality", title=title, finding=scores_finding(pairs), details=details, made=sources(pairs)
    )


def reproducibility(context: PageContext) -> Section:
    """Return identities, versions and how to check the folder."""
    title = "How to check and repeat this"
    facts = tuple(_facts(context.reproducibility))
    if not facts:
        return Section(
            id="reproducibility", title=title, absent="Nothing about the making of this page was recorded."
        )
    full = [f for f in facts if f.full]
    rows = tuple(((f.label,), (Name(f.full),)) for f in full)
    columns = (
        Column(title="Of", source="of", kind="text"),
        Column(title="Digest", source="digest", kind="name"),
    )
    details = (
        (
            Details(
                summary="Full digests",
                tables=(Table(caption=("Digests in full",), columns=columns, rows=rows),),
            ),
        )
        if rows
        else ()
    )
    finding: Text = (
        "The same inputs give the same snapshot id on any machine. Every file of this folder has its digest in ",
        Name("manifest.json"),
        "; the command below compares them.",
    )
    return Section(id="reproducibility", title=title, finding=(finding,), facts=facts, details=details)


def _facts(values: Mapping[str, Any], *, prefix: str = "") -> list[Fact]:
    """Return recorded facts as lines: digests shortened, versions joined, nested mappings opened."""
    out: list[Fact] = []
    for key, value in values.items():
        label = words(f"{prefix} {clean(key)}".strip())
        if isinstance(value, Mapping) and key in ("packages", "versions"):
            parts = ", ".join(f"{clean(k)}\u00a0{clean(v)}" for k, v in value.items())
            out.append(Fact(label="Versions", value=(parts,)))
        elif isinstance(value, Mapping):
            out.extend(_facts(value, prefix=clean(key)))
        elif isinstance(value, str) and DIGEST.fullmatch(value):
            body = value.split(":")[-1]
            out.append(Fact(label=label, value=(Name(body[:SHORT_DIGEST] + "\u2026"),), full=value))
        elif isinstance(value, list | tuple):
            out.append(Fact(label=label, value=(", ".join(clean(v) for v in value),)))
        elif value is not None and value == value:
            out.append(Fact(label=label, value=(clean(value),)))
    return out


def _made(artifact: Artifact | None) -> tuple[Text, ...]:
    """Return how a table was made: method and what its intervals cover, as its maker wrote it."""
    if artifact is None:
        return ()
    found = [artifact.meta.get("method"), artifact.meta.get("interval"), artifact.meta.get("rule")]
    return tuple((_reason(text),) for text in found if isinstance(text, str) and text)


def _absent(context: PageContext, name: str, title: str, *, id: str = "") -> Section:
    return Section(
        id=id or name, title=title, absent=_reason(context.missing.get(name) or "it was not computed")
    )


def _reason(text: object) -> str:
    line = clean(text).strip()
    return f"{line[:1].upper()}{line[1:]}{'' if line.endswith('.') else '.'}"
