"""Findings in words, generated from the tables: one or two plain sentences per section, never more than they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from explain_step.report.format import (
    Name,
    Part,
    Text,
    clean,
    count,
    interval,
    is_number,
    listing,
    number,
    percent,
    plural,
    tidy,
)
from explain_step.report.tables import Labels, words

MAX_OUTPUTS = 4
SIGNIFICANT = 0.05
METRICS = {
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1 score",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "R\u00b2",
}
KINDS = {
    "correct": ("correct", "correct"),
    "incorrect": ("incorrect", "incorrect"),
    "borderline": ("borderline", "borderline"),
    "prototype": ("typical", "typical"),
    "largest_error": ("with the largest error", "with the largest errors"),
}


def metric_words(name: object) -> str:
    """Return a metric's name for readers."""
    return METRICS.get(str(name), str(name).replace("_", " "))


def explained(quantity: Mapping[str, Any]) -> Text:
    """Return the explained quantity in words: ``the predicted probability of deny = yes``.

    Examples
    --------
    >>> from explain_step.report.format import plain
    >>> plain(explained({"phrase": "predicted probability of deny = yes", "outputs": ["yes"]}))
    'the predicted probability of deny = yes'
    """
    phrase = clean(quantity.get("phrase") or "prediction")
    what, _, which = phrase.partition(" of ")
    outputs = list(quantity.get("outputs") or ())
    if len(outputs) > 1:
        space, target = quantity.get("output_space"), quantity.get("target")
        if space == "prediction":
            return (f"the {what} of each of the {len(outputs)} targets",)
        head = f"the {what} of each of the {len(outputs)} classes"
        return (f"{head} of ", Name(str(target))) if target else (head,)
    return (f"the {what} of ", Name(which)) if which else (f"the {what}",)


def aloud(quantity: Mapping[str, Any]) -> Text:
    """Return the one sentence that a judge could read aloud: what is explained, for whom, against what, how exactly."""
    rows, given = quantity.get("rows") or 0, quantity.get("rows_given") or 0
    whom = f"{rows:,} of {given:,} held-out rows" if rows < given else f"{plural(rows, 'held-out row')}"
    return (
        "This page explains ",
        *explained(quantity),
        f" for {whom}, against {background(quantity)}, ",
        how(quantity),
    )


def background(quantity: Mapping[str, Any]) -> str:
    """Return the background in words, as its maker named it."""
    named = clean(quantity.get("background") or "").strip()
    rows = quantity.get("background_rows")
    return named or (
        plural(int(rows), "background row") if is_number(rows) else "a background that is not stated"
    )


def how(quantity: Mapping[str, Any]) -> str:
    """Return ``exactly.`` or how closely the values are estimated."""
    if quantity.get("exact"):
        return "exactly."
    error = quantity.get("typical_error")
    within = f", typically to within \u00b1{number(error, digits=2)}" if is_number(error) else ""
    return f"estimated by sampling{within}."


def importance(table: pd.DataFrame, *, labels: Labels) -> tuple[Text, ...]:
    """Return who leads and which ranks are settled: overall, and who leads each output (at most four)."""
    outputs = list(dict.fromkeys(table["output"]))
    found: list[Text] = [_ranking(summary_part(table), labels=labels)]
    found.extend(_shuffled(summary_part(table), labels=labels))
    if len(outputs) > 1:
        found.append(_leaders(table, outputs=outputs[:-1], labels=labels))
    return tuple(found)


def _leaders(table: pd.DataFrame, *, outputs: Sequence[Any], labels: Labels) -> Text:
    """Return the leading feature of each output: who leads need not be the same."""
    parts: list[Part] = []
    for k, output in enumerate(outputs[:MAX_OUTPUTS]):
        part = table[table["output"] == output]
        leader = labels.of(part.loc[part["mean_abs_shap"].idxmax(), "feature"])
        parts += [
            ("For " if k == 0 else ", for "),
            Name(str(output)),
            " ",
            leader,
            " leads" if k == 0 else "",
        ]
    more = len(outputs) - MAX_OUTPUTS
    return (*parts, f"; {plural(more, 'more output')} in the table." if more > 0 else ".")


def _ranking(part: pd.DataFrame, *, labels: Labels) -> Text:
    live = part[part["mean_abs_shap"] > 0]
    idle = len(part) - len(live)
    if live.empty:
        return ("no input changes the output on any of these rows.",)
    blocks = tied_blocks(live)
    names = [labels.of(f) for f in live["feature"]]
    first = len(blocks[0])
    if len(names) == 1:
        head: Text = (names[0], " is the only input that changes the output")
    elif first == 1:
        settled = next((k for k, b in enumerate(blocks) if len(b) > 1), len(blocks))
        lead = names[: min(settled, 2)] if settled > 1 else names[:1]
        head = (*listing(lead), " leads" if len(lead) == 1 else " lead, in this order")
    elif first <= 3:
        head = (*listing(names[:first]), " lead, in an order that is not settled")
    else:
        head = (*listing(names[:3]), f" come first, but the order of ranks 1 to {first} is not settled")
    return (*head, _open_ranks(blocks), _idle(idle))


def tied_blocks(part: pd.DataFrame) -> list[list[int]]:
    """Return runs of positions whose neighbours cannot be told apart (their rank intervals overlap).

    ``part`` is one output's importance table, largest first.
    """
    low, high = part["rank_low"].tolist(), part["rank_high"].tolist()
    blocks = [[0]]
    reach = high[0]
    for k in range(1, len(part)):
        if is_number(reach) and is_number(low[k]) and low[k] > reach:
            blocks.append([k])
            reach = high[k]
        else:
            blocks[-1].append(k)
            reach = max(reach, high[k])
    return blocks


def _open_ranks(blocks: Sequence[Sequence[int]]) -> str:
    ties = [f"{b[0] + 1} to {b[-1] + 1}" for b in blocks[1:] if len(b) > 1]
    if ties:
        return f"; the order of ranks {plain_list(ties[:3])} is not settled" + (
            " (among others)" if ties[3:] else ""
        )
    return "; every rank is settled" if len(blocks) > 1 and len(blocks[0]) == 1 else ""


def plain_list(items: Sequence[str]) -> str:
    """Return plain strings as ``a, b and c``."""
    return "".join(str(p) for p in listing(items))


def _idle(n: int) -> str:
    return "." if n == 0 else f". {plural(n, 'input')} {'has' if n == 1 else 'have'} no effect on these rows."


def _shuffled(table: pd.DataFrame, *, labels: Labels) -> list[Text]:
    """Say so when shuffling a column names another leader than the attributions do."""
    if "permutation_importance" not in table.columns or not table["permutation_importance"].notna().any():
        return []
    leader = labels.of(table.loc[table["mean_abs_shap"].idxmax(), "feature"])
    other = labels.of(table.loc[table["permutation_importance"].idxmax(), "feature"])
    if other == leader:
        return [
            (
                "Shuffling ",
                leader,
                " also costs the most performance.",
            )
        ]
    return [("Shuffling ", other, " costs the most performance, not ", leader, ".")]


def summary_part(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that speak for the whole model: the only output, or the mean over outputs (the last one)."""
    output = table["output"].iloc[-1]
    part = table[table["output"] == output]
    return part.sort_values("mean_abs_shap", ascending=False, kind="stable")


def shares(table: pd.DataFrame) -> tuple[float, float, float, tuple[str, ...]]:
    """Return the share of the three leading features, outer bounds of it, and their names.

    The bounds are the sums of the three features' own bounds, or one minus those of the others where that is
    narrower: they are at least as wide as an interval of the sum.
    """
    part = summary_part(table)
    names = tuple(map(str, part["feature"].head(3)))
    total = float(part["mean_abs_shap"].sum())
    if not total > 0:
        return float("nan"), float("nan"), float("nan"), names
    share = float(part["mean_abs_shap"].head(3).sum()) / total
    if not {"share_ci_low", "share_ci_high"} <= set(part.columns):
        return share, float("nan"), float("nan"), names
    low, high = part["share_ci_low"].to_numpy(dtype=float), part["share_ci_high"].to_numpy(dtype=float)
    return share, max(low[:3].sum(), 1 - high[3:].sum()), min(high[:3].sum(), 1 - low[3:].sum(), 1.0), names


def dependence(table: pd.DataFrame, *, order: Sequence[str], labels: Labels) -> tuple[Text, ...]:
    """Return how the contribution changes along the first three inputs (first output)."""
    output = table["output"].iloc[0]
    mine = table[table["output"] == output]
    curve = "shap" if (mine["curve"] == "shap").any() else str(mine["curve"].iloc[0])
    mine = mine[mine["curve"] == curve]
    present = set(mine["feature"])
    features = [f for f in order if f in present] or list(dict.fromkeys(mine["feature"]))
    parts = [_course(mine[mine["feature"] == f], feature=labels.of(f)) for f in features[:3]]
    lead: Text = ("For ", Name(str(output)), ": ") if table["output"].nunique() > 1 else ()
    sentences = [p for p in parts if p]
    return tuple((*(lead if k == 0 else ()), *p) for k, p in enumerate(sentences))


def _course(curve: pd.DataFrame, *, feature: Name) -> Text:
    """Return the course of one curve in words."""
    curve = curve[curve["value"].notna()]
    if len(curve) < 2:
        return ()
    x = pd.to_numeric(curve["x"], errors="coerce")
    if x.notna().sum() < 2 or (is_categorical(curve)):
        low, high = curve.loc[curve["value"].idxmin()], curve.loc[curve["value"].idxmax()]
        return (
            "The contribution of ", feature, " is lowest at ", Name(tidy(low["x"])), f" ({number(low['value'], sign=True)}) and highest at ",
            Name(tidy(high["x"])), f" ({number(high['value'], sign=True)}).",
        )  # fmt: skip
    line = curve.assign(x=x).dropna(subset=["x"]).sort_values("x")
    values = line["value"].to_numpy(dtype=float)
    if np.ptp(values) == 0:
        return ("The contribution of ", feature, " stays the same over its values.")
    first, last = line.iloc[0], line.iloc[-1]
    ends = f"from {number(first['value'], sign=True)} at {tidy(float(first['x']))} to {number(last['value'], sign=True)} at {tidy(float(last['x']))}"
    verb = trend(values)
    if verb:
        return ("The contribution of ", feature, f" {verb} with its value, {ends}.")
    low, high = line.loc[line["value"].idxmin()], line.loc[line["value"].idxmax()]
    return (
        "The contribution of ", feature, f" turns along its values: lowest at {tidy(float(low['x']))} ({number(low['value'], sign=True)}), ",
        f"highest at {tidy(float(high['x']))} ({number(high['value'], sign=True)}).",
    )  # fmt: skip


def is_categorical(curve: pd.DataFrame) -> bool:
    """Return whether a curve's values are levels rather than numbers."""
    for name in ("categorical", "is_categorical"):
        if name in curve.columns:
            return bool(curve[name].iloc[0])
    return bool(pd.to_numeric(curve["x"], errors="coerce").isna().mean() > 0.5)


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


def interactions(table: pd.DataFrame, *, labels: Labels) -> tuple[Text, ...]:
    """Return the strongest pair."""
    names = [c for c in table.columns if str(c).startswith(("feature", "other", "with"))][:2]
    if len(names) < 2 or table.empty:
        return ()
    first = table.iloc[0]
    return (
        (
            "The strongest interaction is between ",
            labels.of(first[names[0]]),
            " and ",
            labels.of(first[names[1]]),
            ".",
        ),
    )


def segments(table: pd.DataFrame, *, labels: Labels) -> tuple[Text, ...]:
    """Return the range of performance over the segments, and whether importances differ."""
    found: list[Text] = []
    groups = table.drop_duplicates(["segment", "level", "metric"])
    known = groups[groups["metric_value"].notna()]
    if len(known) > 1:
        known = known[known["metric"] == known["metric"].iloc[0]]
        low, high = known.loc[known["metric_value"].idxmin()], known.loc[known["metric_value"].idxmax()]
        metric = metric_words(low["metric"])
        found.append(
            (
                f"{metric[:1].upper()}{metric[1:]} runs from {number(low['metric_value'])} (", *segment_name(low, labels=labels),
                f", {plural(int(low['n']), 'row')}) to {number(high['metric_value'])} (", *segment_name(high, labels=labels),
                f", {plural(int(high['n']), 'row')}) over {plural(len(known), 'segment')}.",
            )
        )  # fmt: skip
    found.extend(_differences(table, labels=labels))
    return tuple(found)


def _differences(table: pd.DataFrame, *, labels: Labels) -> list[Text]:
    tested = table[table["p_adjusted"].notna()]
    if tested.empty:
        return []
    clear = tested[tested["p_adjusted"] < SIGNIFICANT]
    if clear.empty:
        return [
            (
                f"None of {plural(len(tested), 'difference')} in importance stands out from chance after adjustment.",
            )
        ]
    top = clear.loc[clear["difference"].abs().idxmax()]
    more = "more" if top["difference"] > 0 else "less"
    return [
        (f"{count(len(clear))} of {plural(len(tested), 'difference')} in importance stand out after adjustment; the largest: ",
         labels.of(top["feature"]), f" weighs {more} in ", *segment_name(top, labels=labels), " than in the rest."),
    ]  # fmt: skip


def segment_name(row: Any, *, labels: Labels) -> Text:
    """Return a segment and its level: ``afam = yes``; an expression that holds is shown alone."""
    name, level = labels.of(row["segment"]), str(row["level"])
    if level.lower() in ("true", "yes", "") and any(sign in name.text for sign in "<>="):
        return (name,)
    return (Name(f"{name.text} = {tidy(level)}"),)


def examples(table: pd.DataFrame) -> tuple[Text, ...]:
    """Return how many rows of which kind are shown."""
    rows = table.drop_duplicates("example")
    kinds = rows["kind"].value_counts(sort=False)
    parts: list[Part] = []
    for kind, n in kinds.items():
        one, many = KINDS.get(str(kind), (str(kind).replace("_", " "),) * 2)
        parts.append(f"{count(n)} {one if n == 1 else many}")
    verb = "is" if len(rows) == 1 else "are"
    return (
        (
            f"{plural(len(rows), 'prediction')} {verb} taken apart, chosen by a stated rule: ",
            *listing(parts),
            ".",
        ),
    )


def with_interval(value: Any, low: Any, high: Any, *, share: bool = False) -> str:
    """Return ``0.870 (0.840 to 0.900)``; without known bounds the value alone."""
    shown = percent(value) if share else number(value)
    bounds = interval(low, high)
    if not (is_number(low) and is_number(high)):
        return shown
    return f"{shown} ({percent(low)} to {percent(high)})" if share else f"{shown} ({bounds})"


def heading(name: str) -> str:
    """Return a section's stored name as words."""
    return words(name)
