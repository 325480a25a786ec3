"""Which inputs matter: the finding and the tables of the importance section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from explain_step.report.context import PageContext
from explain_step.report.format import Name, Part, Text, is_number, listing, plural
from explain_step.report.limits import members_of
from explain_step.report.sections import Details, Section, absent, made, present
from explain_step.report.sentences import capital, metric_words, sentence, spelled
from explain_step.report.tables import Column, Labels, Table, column, interval_column, largest, make_table
from explain_step.types import Artifact

TITLE = "Which inputs matter"
MAX_OUTPUTS = 4
MAX_TABLES = 7
MAX_TIED = 3
"""So many leaders of one output that cannot be told apart are named."""
MAX_IDLE = 5
"""So many inputs without effect are named in the finding; the table has all."""
NOISE = 1e-12
"""Of the largest effect: averages with sign below are rounding errors."""
TABLE = (
    Column(title="Input", source="feature", kind="name"),
    column("rank"),
    column("mean_abs_shap"),
    interval_column("mean_abs_shap"),
    column("share"),
    column("permutation_importance"),
    interval_column("permutation_importance", low="permutation_ci_low", high="permutation_ci_high"),
    column("mean_shap"),
)
VIEWS = (
    ("importance_groups", "Declared groups as one input each", "group"),
    ("importance_clusters", "Correlated inputs as one input each", "cluster"),
)


def section(context: PageContext, *, labels: Labels) -> Section:
    """Return the section."""
    artifact = present(context, "importance")
    if artifact is None:
        return absent(context, "importance", id="importance", title=TITLE)
    details = [Details(summary="Table of all inputs", tables=tables(artifact, labels=labels))]
    for name, summary, key in VIEWS:
        extra = present(context, name)
        if extra is not None:
            details.append(Details(summary=summary, tables=(_sets(extra, summary, key=key, labels=labels),)))
    return Section(
        id="importance",
        title=TITLE,
        finding=finding(artifact.table, labels=labels),
        details=tuple(details),
        made=(*made(artifact), *_shuffling(artifact)),
    )


def finding(table: pd.DataFrame, *, labels: Labels) -> tuple[Text, ...]:
    """Return who leads and which ranks are settled; with several outputs also who leads each."""
    outputs = list(dict.fromkeys(table["output"]))
    whole = overall(table)
    several = [_leaders(table, outputs=outputs[:-1], labels=labels)] if len(outputs) > 1 else []
    return (*_ranking(whole, labels=labels), *several, *_shuffled(whole, labels=labels))


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that speak for the whole model: the only output, or the mean over outputs (last)."""
    part: pd.DataFrame = table[table["output"] == table["output"].iloc[-1]]
    return part.sort_values("mean_abs_shap", ascending=False, kind="stable")


def _ranking(part: pd.DataFrame, *, labels: Labels) -> list[Text]:
    live = part[part["mean_abs_shap"] > 0]
    if live.empty:
        return [("No input changes the output on any of these rows.",)]
    blocks = tied_blocks(live)
    head = _lead([labels.of(f) for f in live["feature"]], blocks=blocks)
    found: list[Text] = [(*head, _open_ranks(blocks), ".")]
    idle = [labels.of(f) for f in part["feature"][~(part["mean_abs_shap"] > 0)]]
    if idle:
        verb = "input has" if len(idle) == 1 else "inputs have"
        named: Text = (": ", *listing(idle)) if len(idle) <= MAX_IDLE else ()
        found.append((f"{capital(spelled(len(idle)))} {verb} no effect on these rows", *named, "."))
    return found


def _lead(names: Sequence[Name], *, blocks: Sequence[Sequence[int]]) -> Text:
    first = len(blocks[0])
    if len(names) == 1:
        return (names[0], " is the only input that changes the output")
    if first == 1:
        settled = next((k for k, block in enumerate(blocks) if len(block) > 1), len(blocks))
        lead = names[: min(settled, 2)]
        return (*listing(lead), " leads" if len(lead) == 1 else " lead, in this order")
    if first <= 3:
        return (*listing(names[:first]), " lead, in an order that is not settled")
    return (*listing(names[:3]), f" come first, but the order of ranks 1 to {first} is not settled")


def tied_blocks(part: pd.DataFrame) -> list[list[int]]:
    """Return runs of positions whose neighbours cannot be told apart (their rank intervals overlap).

    ``part`` is one output's importance table, largest first; unknown rank bounds overlap with everything.
    """
    low, high = part["rank_low"].tolist(), part["rank_high"].tolist()
    blocks, reach = [[0]], high[0]
    for k in range(1, len(part)):
        apart = is_number(reach) and is_number(low[k]) and low[k] > reach
        if apart:
            blocks.append([k])
        else:
            blocks[-1].append(k)
        reach = high[k] if apart else max(reach, high[k])
    return blocks


def _open_ranks(blocks: Sequence[Sequence[int]]) -> str:
    open_blocks = [b for b in blocks[1:] if len(b) > 1]
    alone = len(open_blocks) == 1
    ties = [f"{b[0] + 1} {'and' if alone and len(b) == 2 else 'to'} {b[-1] + 1}" for b in open_blocks]
    if not ties:
        return "; every rank is settled" if len(blocks) > 1 and len(blocks[0]) == 1 else ""
    shown = "".join(str(part) for part in listing(ties[:3]))
    open_text = f"the order of ranks {shown} is not settled" + (" (among others)" if ties[3:] else "")
    return f"; neither is that of ranks {shown}" if len(blocks[0]) > 1 else f"; {open_text}"


def _shuffled(part: pd.DataFrame, *, labels: Labels) -> list[Text]:
    """Say whether shuffling a column names the same leader as the attributions do."""
    column_name = "permutation_importance"
    if column_name not in part.columns or not part[column_name].notna().any():
        return []
    leader, other = (
        labels.of(part["feature"].iloc[0]),
        labels.of(largest(part, column_name)["feature"]),
    )
    if not part["mean_abs_shap"].iloc[0] > 0 or not part[column_name].max() > 0:
        return []
    low = "permutation_ci_low"
    if low in part.columns and part[low].notna().any() and not (part[low] > 0).any():
        return [("Shuffling any one input costs no performance that stands out from chance.",)]
    if part[column_name].isna().any() and len(part) > 1:
        return []  # the ones that were not shuffled may cost more
    if other == leader:
        return [
            (
                "Shuffling ",
                leader,
                " also costs the most performance.",
            )
        ]
    return [("Measured by the performance lost when an input is shuffled, ", other, " comes first.")]


def _leaders(table: pd.DataFrame, *, outputs: Sequence[Any], labels: Labels) -> Text:
    """Return the leading input of each output; outputs with the same one stand together."""
    by_leader: dict[Text, list[Name]] = {}
    for output in outputs[:MAX_OUTPUTS]:
        leader = _first(table[table["output"] == output], labels=labels)
        by_leader.setdefault(leader, []).append(Name(str(output)))
    if len(by_leader) == 1 < len(outputs) <= MAX_OUTPUTS:
        return (*next(iter(by_leader)), " for each of them.")
    parts: list[Part] = []
    for k, (leader, whom) in enumerate(by_leader.items()):
        parts += ["; for " if k else "For ", *listing(whom), ", ", *leader]
    more = len(outputs) - MAX_OUTPUTS
    return (*parts, f"; {plural(more, 'more output')} in the table." if more > 0 else ".")


def _first(part: pd.DataFrame, *, labels: Labels) -> Text:
    """Return who leads one output, in as far as that is settled."""
    ordered = part.sort_values("mean_abs_shap", ascending=False, kind="stable")
    names = [labels.of(f) for f in ordered["feature"][ordered["mean_abs_shap"] > 0]]
    if not names:
        return ("no input has an effect",)
    tied = min(len(tied_blocks(ordered)[0]), len(names))
    if tied == 1:
        return (names[0], " leads")
    if tied <= MAX_TIED:
        return (*listing(names[:tied]), " lead together")
    return (f"the first {spelled(tied)} cannot be told apart",)


def shares(table: pd.DataFrame) -> tuple[float, float, float, tuple[str, ...]]:
    """Return the share of the (at most three) leading inputs that have any, its interval, and their names.

    The interval is NaN in tables that have none (older snapshots).
    """
    part = overall(table)
    leaders = part[part["mean_abs_shap"] > 0].head(3)
    names = tuple(map(str, leaders["feature"]))
    nan = float("nan")
    if leaders.empty:
        return nan, nan, nan, names
    share = float(leaders["mean_abs_shap"].sum()) / float(part["mean_abs_shap"].sum())
    if "cumulative_ci_low" not in part.columns:
        return share, nan, nan, names
    last = leaders.iloc[-1]
    return share, float(last["cumulative_ci_low"]), float(last["cumulative_ci_high"]), names


def tables(artifact: Artifact, *, labels: Labels) -> tuple[Table, ...]:
    """Return one table per output (not all of very many), the one for all of them first."""
    outputs = list(dict.fromkeys(artifact.table["output"]))
    order = [outputs[-1], *outputs[:-1]][:MAX_TABLES]
    return tuple(
        make_table(
            _without_noise(artifact.table[artifact.table["output"] == output]),
            TABLE,
            caption=_caption(str(output), outputs=outputs),
            labels=labels,
            absent="not measured for this input",
            file="importance.parquet",
        )
        for output in order
    )


def _caption(output: str, *, outputs: Sequence[Any]) -> Text:
    """Return what a table shows; the last of several outputs is the mean over them."""
    if len(outputs) == 1:
        return ("Importance of inputs",)
    if output == str(outputs[-1]):
        return (f"Importance of inputs, {output.strip('()')}",)
    return ("Importance of inputs for ", Name(output))


def _without_noise(table: pd.DataFrame) -> pd.DataFrame:
    """Show averages that are rounding errors of the effects, as against the explained rows themselves, as 0."""
    if "mean_shap" not in table.columns:
        return table
    noise = table["mean_shap"].abs() < NOISE * table["mean_abs_shap"].max()
    return table.assign(mean_shap=table["mean_shap"].mask(noise, 0.0))


def _sets(artifact: Artifact, summary: str, *, key: str, labels: Labels) -> Table:
    """Return the importance of sets of inputs, each named by its members."""
    table = artifact.table[artifact.table["output"] == artifact.table["output"].iloc[-1]]
    names = [_set_name(row, key=key, labels=labels) for row in table.to_dict("records")]
    return make_table(
        table.assign(feature=pd.Series(names, index=table.index, dtype=object)),
        TABLE[:5],
        caption=(summary,),
        labels=Labels(),
        file=f"{artifact.name}.parquet",
    )


def _set_name(row: dict[Any, Any], *, key: str, labels: Labels) -> str:
    members = [labels.of(m).text for m in members_of(row["members"])] if "members" in row else []
    name = str(row.get(key, ""))
    if len(members) <= 1:
        return members[0] if members else name
    return ", ".join(members) if key == "cluster" else f"{name} ({', '.join(members)})"


def _shuffling(artifact: Artifact) -> tuple[Text, ...]:
    """Return how the loss by shuffling was measured."""
    meta = artifact.meta.get("permutation")
    if not isinstance(meta, dict) or not isinstance(meta.get("metric"), str):
        return ()
    if isinstance(meta.get("reason"), str):
        return ((f"Loss when shuffled: {meta['reason']}.",),)
    parts = [
        f"Loss when shuffled, in {metric_words(meta['metric'])}: {meta.get('method', '')}",
        meta.get("interval"),
    ]
    return tuple((sentence(text),) for text in parts if isinstance(text, str) and text)
