"""What was explained, and how to check and repeat it: the sections that hold facts rather than findings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from explain_step.report.context import PageContext
from explain_step.report.format import Name, Text, clean, is_number, number, plural
from explain_step.report.sections import Details, Fact, Section, present
from explain_step.report.sentences import explained, perturbation, sentence
from explain_step.report.tables import Column, Table, words

DIGEST = re.compile(r"(?:[a-z0-9]+[:-])?[0-9a-f]{32,128}")
SHORT = 12
SHAPLEY = {
    "interventional": "A contribution is an interventional Shapley value: the average change of the output when the "
    "input takes the value of the row, over all orders of the inputs, while those that are not yet set "
    "keep the values of a background row.",
    "correlation_dependent": "A contribution is a correlation-dependent Shapley value: the average change of the "
    "expected output when the input becomes known, over all orders of the inputs, while those that are not yet known are "
    "expected from the known ones, by the linear regression of the background rows.",
}
NAMES = {
    "uri": "Address",
    "run_id": "Run",
    "model_id": "Logged model",
}


def explained_section(context: PageContext) -> Section:
    """Return what was explained, in plain words."""
    q = context.quantity
    model = clean(context.identity.get("model_class") or "")
    inputs = _inputs(context)
    reads = f" reads {plural(inputs, 'input')} and" if inputs else ""
    who: Text = (
        "The model",
        *((" (", Name(model), ")") if model else ()),
        f"{reads} gives ",
        *explained(q),
        ".",
    )
    base = _base_value(context)
    start = f", {number(base)}," if base is not None else ""
    split = (
        "For each row, that output is split into one contribution per input. Added up, they lead from the "
        f"average output over the background rows{start} to the output of the row: a positive contribution "
        "pushes it up, a negative one down."
    )
    shapley = SHAPLEY[perturbation(q)]
    method, space = clean(q.get("method") or "not stated"), clean(q.get("output_space") or "not stated")
    rows = plural(int(q.get("rows") or 0), "row")
    exact = "exact" if q.get("exact") else "estimated"
    how = f"Method {method}, {exact}; output space {space}; {rows} explained."
    return Section(
        id="explained",
        title="What was explained",
        finding=(who, (split,)),
        facts=_identity(context.identity),
        made=((shapley,), (how,), *_performance(context)),
    )


def _performance(context: PageContext) -> tuple[Text, ...]:
    """Return what the interval of the performance at the top covers; no other section need be there to say it."""
    artifact = present(context, "performance")
    covers = artifact.meta.get("interval") if artifact is not None else None
    return ((f"Performance: {clean(covers)}",),) if isinstance(covers, str) and covers else ()


def _inputs(context: PageContext) -> int:
    artifact = present(context, "importance")
    return 0 if artifact is None else int(artifact.table["feature"].nunique())


def _base_value(context: PageContext) -> float | None:
    """Return the average output over the background where there is one for all examples."""
    artifact = present(context, "examples")
    if (
        artifact is None
        or "base_value" not in artifact.table.columns
        or artifact.table["output"].nunique() != 1
    ):
        return None
    values = artifact.table["base_value"].dropna()
    same = len(values) > 0 and values.max() - values.min() <= 1e-9 * max(1.0, abs(values.max()))
    return float(values.iloc[0]) if same and is_number(values.iloc[0]) else None


def _identity(identity: Mapping[str, Any]) -> tuple[Fact, ...]:
    facts = [Fact(label=t, value=(Name(str(identity[k])),)) for k, t in NAMES.items() if identity.get(k)]
    binding = identity.get("binding")
    if binding:
        note = clean(identity.get("binding_note") or "")
        word = sentence(str(binding))
        facts.append(Fact(label="Same model", value=(f"{word} {sentence(note)}".strip(),)))
    return tuple(facts)


def reproducibility_section(context: PageContext) -> Section:
    """Return identities, versions, and how to check the folder."""
    title = "How to check and repeat this"
    facts = tuple(_facts(context.reproducibility))
    if not facts:
        return Section(
            id="reproducibility", title=title, absent="Nothing about the making of this page was recorded."
        )
    finding: Text = (
        "The same inputs give the same snapshot id on any machine. ",
        Name("manifest.json"),
        " holds the digest of every file of the snapshot; the command compares them.",
    )
    full = tuple(((f.label,), (Name(f.full),)) for f in facts if f.full)
    columns = (
        Column(title="Of", source="of", kind="text"),
        Column(title="Digest", source="digest", kind="name"),
    )
    table = Table(caption=("Digests in full",), columns=columns, rows=full)
    details = (Details(summary="Digests in full", tables=(table,)),) if full else ()
    return Section(id="reproducibility", title=title, finding=(finding,), facts=facts, details=details)


def _facts(values: Mapping[str, Any], *, prefix: str = "") -> list[Fact]:
    """Return recorded facts as lines: digests shortened, versions joined, nested mappings opened."""
    out: list[Fact] = []
    for key, value in values.items():
        label = words(clean(f"{prefix} {key}").strip())
        if isinstance(value, Mapping) and key in ("packages", "versions"):
            joined = ", ".join(f"{clean(k)}\u00a0{clean(v)}" for k, v in value.items())
            out.append(Fact(label="Versions", value=(joined,)))
        elif isinstance(value, Mapping):
            out.extend(_facts(value, prefix=str(key)))
        elif isinstance(value, str) and DIGEST.fullmatch(value):
            short = Name(value.split(":")[-1][:SHORT] + "\u2026")
            out.append(Fact(label=label, value=(short,), full=value))
        elif isinstance(value, list | tuple):
            out.append(Fact(label=label, value=(", ".join(clean(v) for v in value),)))
        elif value is not None and (not isinstance(value, float) or is_number(value)):
            out.append(Fact(label=label, value=(clean(value),)))
    return out
