"""Single predictions, taken apart: the finding and the tables of the examples section."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from explain_step.report.context import PageContext
from explain_step.report.format import MISSING, Name, Part, Text, decimals, listing, number, plural, tidy
from explain_step.report.sections import Details, Section, absent, made, present
from explain_step.report.sentences import capital, sentence, spelled
from explain_step.report.tables import Column, Labels, Table, column, make_table
from explain_step.types import Artifact

TITLE = "Single predictions, taken apart"
SHOWN = 16
CONTRIBUTIONS = 10
KINDS = {
    "correct": ("correct one", "correct ones"),
    "incorrect": ("incorrect one", "incorrect ones"),
    "borderline": ("borderline one", "borderline ones"),
    "prototype": ("typical one", "typical ones"),
    "largest_error": ("with the largest error", "with the largest errors"),
}
OVERVIEW = (
    Column(title="Row", source="row_id", kind="text"),
    Column(title="Why chosen", source="kind", kind="word"),
    Column(title="True", source="y_true", kind="text"),
    Column(title="Predicted", source="y_pred", kind="text"),
    Column(title="Output", source="prediction"),
)
TABLE = (column("feature"), column("feature_value"), column("shap"))


def section(context: PageContext, *, labels: Labels) -> Section:
    """Return the section."""
    artifact = present(context, "examples")
    if artifact is None:
        return absent(context, "examples", id="examples", title=TITLE)
    details = [
        Details(summary="Table of the rows", tables=(overview(artifact, labels=labels),)),
        Details(summary="Tables of contributions", tables=contributions(artifact, labels=labels)),
    ]
    rules = _rules(artifact)
    if rules:
        details.append(Details(summary="How the rows were chosen", lines=rules))
    finding = sentences(artifact.table)
    return Section(id="examples", title=TITLE, finding=finding, details=tuple(details), made=made(artifact))


def _rules(artifact: Artifact) -> tuple[Text, ...]:
    """Return the rule of each kind that is shown, and the rules for ties and repeats."""
    rules = artifact.meta.get("rules")
    if not isinstance(rules, Mapping):
        return ()
    absent_kinds = set(KINDS) - set(map(str, artifact.table["kind"]))
    shown = {str(k): str(v) for k, v in rules.items() if k not in absent_kinds}
    return tuple((sentence(f"{capital(kind.replace('_', ' '))}: {rule}"),) for kind, rule in shown.items())


def sentences(table: pd.DataFrame) -> tuple[Text, ...]:
    """Return how many rows of which kind are shown."""
    rows = table.drop_duplicates("example")
    parts: list[Part] = []
    for kind, n in rows["kind"].value_counts(sort=False).items():
        one, many = KINDS.get(str(kind), (str(kind).replace("_", " "),) * 2)
        parts.append(f"{spelled(int(n))} {one if n == 1 else many}")
    head = "prediction is" if len(rows) == 1 else "predictions are"
    return (
        (
            f"{capital(spelled(len(rows)))} {head} shown, chosen by rule and not by hand: ",
            *listing(parts),
            ".",
        ),
    )


def overview(artifact: Artifact, *, labels: Labels) -> Table:
    """Return the rows that are shown, with truth and prediction."""
    rows = artifact.table.drop_duplicates(["example", "output"])
    several = (
        (Column(title="Output of", source="output", kind="text"),) if rows["output"].nunique() > 1 else ()
    )
    amounts = artifact.meta.get("quantity", {}).get("output_space") == "prediction"
    return make_table(
        rows.assign(**{c: rows[c].map(_amount) for c in ("y_true", "y_pred")}) if amounts else rows,
        (*OVERVIEW[:-1], *several, OVERVIEW[-1]),
        caption=("The rows shown",),
        labels=labels,
        file="examples.parquet",
    )


def _amount(text: object) -> str:
    """Return a number that was kept as text, rounded; a range and nothing stay as they are."""
    try:
        return number(float(str(text)))
    except ValueError:
        return tidy(text)


def contributions(artifact: Artifact, *, labels: Labels) -> tuple[Table, ...]:
    """Return the largest contributions of each row, per output that is shown of it."""
    several = artifact.table["output"].nunique() > 1
    parts = [part for _, part in artifact.table.groupby(["example", "output"], sort=False, observed=True)]
    return tuple(_contributions(part, several=several, labels=labels) for part in parts[:SHOWN])


def _contributions(part: pd.DataFrame, *, several: bool, labels: Labels) -> Table:
    first = part.iloc[0]
    ordered = part.loc[part["shap"].abs().sort_values(ascending=False, kind="stable").index]
    output: Text = (", ", Name(str(first["output"]))) if several else ()
    which = f" ({str(first['kind']).replace('_', ' ')})"
    row = tidy(first["row_id"])
    subject: Text = (f"Example {tidy(first['example'])}",) if row == MISSING else ("Row ", Name(row))
    caption: Text = (*subject, which, *output)
    table = make_table(
        ordered.head(CONTRIBUTIONS), TABLE, caption=caption, labels=labels, absent="missing or withheld"
    )
    rest = ordered["shap"].iloc[CONTRIBUTIONS:]
    places = decimals(ordered["shap"])
    others = (
        f"{plural(len(rest), 'other input')} together {number(float(rest.sum()), places=places, sign=True)}. "
    )
    ends = f"From {number(first['base_value'])} on average to {number(first['prediction'])} for this row."
    notes: list[Text] = [((others if len(rest) else "") + ends,)]
    return Table(caption=table.caption, columns=table.columns, rows=table.rows, notes=(*notes, *table.notes))
