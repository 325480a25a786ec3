"""What was not checked: a list made from the facts of one explanation, so that silence is never read as approval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from explain_step.report.format import Part, Text, clean, listing, number, plural
from explain_step.report.tables import Labels
from explain_step.types import Artifact

MAX_NAMED = 6


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that this explanation does not tell."""

    title: str
    body: Text


def limits(
    *,
    quantity: Mapping[str, Any],
    identity: Mapping[str, Any],
    artifacts: Mapping[str, Artifact],
    codes: frozenset[str],
    labels: Labels,
) -> tuple[Limit, ...]:
    """Return what was not checked, the general first and then what follows from this explanation's facts.

    Parameters
    ----------
    quantity, identity, artifacts
        As in `explain_step.report.PageContext`.
    codes : frozenset of str
        Codes of the caveats.
    labels : Labels
    """
    rows = int(quantity.get("rows") or 0)
    found = [
        Limit("Causes.", ("Contributions describe this model. They do not say what would happen in the world if an input were changed.",)),
        Limit("Other data.", (f"Nothing here speaks of values or combinations that do not occur among {plural(rows, 'row')}, nor of later data.",)),
        Limit("Held-out rows.", ("That the model did not see these rows in training is the word of whoever gave them.",)),
        Limit("Another training.", ("Intervals cover which rows were drawn. They do not cover refitting the model with other rows or another seed.",)),
        _background(quantity),
        _correlation(artifacts, labels=labels),
        _fairness(artifacts, labels=labels),
        *_sampling(quantity),
        *_labels(artifacts),
        *_binding(identity),
    ]  # fmt: skip
    if any("redact" in code or "privacy" in code for code in codes):
        found.append(
            Limit(
                "Hidden values.",
                ("Some values are withheld for privacy; what they would show is not on this page.",),
            )
        )
    return tuple(found)


def _background(quantity: Mapping[str, Any]) -> Limit:
    named = clean(quantity.get("background") or "the background")
    return Limit(
        "Another comparison.",
        (
            f"Contributions are measured against {named}. Against other rows they would differ; no other was tried.",
        ),
    )


def _correlation(artifacts: Mapping[str, Artifact], *, labels: Labels) -> Limit:
    clusters = artifacts.get("importance_clusters")
    body: Text = ("Inputs are varied one by one, also into combinations that may never occur together.",)
    pairs = cluster_members(clusters) if clusters is not None else []
    if not pairs:
        return Limit("Correlated inputs.", body)
    groups: list[Part] = []
    for k, members in enumerate(pairs[:3]):
        groups += ["; "] if k else []
        groups += listing([labels.of(f) for f in members[:MAX_NAMED]])
    return Limit(
        "Correlated inputs.",
        (
            *body,
            " This matters here for ",
            *groups,
            ", which move together; how credit is split between them is not settled by the data.",
        ),
    )


def cluster_members(artifact: Artifact) -> list[list[str]]:
    """Return the members (a JSON list per row) of each set with at least two inputs, each set once."""
    if "members" not in artifact.table.columns:
        return []
    found = [members_of(value) for value in dict.fromkeys(artifact.table["members"])]
    return [members for members in found if len(members) > 1]


def members_of(value: Any) -> list[str]:
    """Return the columns of one set; anything that is no JSON list counts as one name."""
    try:
        parsed = json.loads(value)
    except (TypeError, ValueError):
        return [str(value)]
    return [str(v) for v in parsed] if isinstance(parsed, list) else [str(value)]


def _fairness(artifacts: Mapping[str, Artifact], *, labels: Labels) -> Limit:
    segments = artifacts.get("segments")
    if segments is None or segments.table.empty:
        return Limit(
            "Fairness.",
            ("No groups of rows were compared, so nothing here says whether the model treats groups alike.",),
        )
    names = list(dict.fromkeys(map(str, segments.table["segment"])))
    shown: Sequence[Any] = [labels.of(n) for n in names[:MAX_NAMED]]
    more = [f"{len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    return Limit(
        "Fairness.",
        (
            "Groups were compared only by ",
            *listing([*shown, *more]),
            ". Other groups, smaller ones and combinations were not, and no verdict on fairness is given.",
        ),
    )


def _sampling(quantity: Mapping[str, Any]) -> list[Limit]:
    found = []
    rows, given = int(quantity.get("rows") or 0), int(quantity.get("rows_given") or 0)
    if rows < given:
        found.append(
            Limit(
                "The other rows.", (f"{given - rows:,} of {plural(given, 'row')} given were not explained.",)
            )
        )
    if not quantity.get("exact", True):
        error = quantity.get("typical_error")
        size = f" (typically \u00b1{number(error, digits=2)})" if error is not None else ""
        found.append(
            Limit(
                "Exact values.",
                (
                    f"Contributions are estimated by sampling; their own error{size} is not part of the intervals unless a table says so.",
                ),
            )
        )
    return found


def _labels(artifacts: Mapping[str, Artifact]) -> list[Limit]:
    if "performance" in artifacts:
        return [Limit("The labels.", ("Performance takes the given labels as true.",))]
    return [Limit("Performance.", ("Whether the predictions are right was not measured.",))]


def _binding(identity: Mapping[str, Any]) -> list[Limit]:
    binding = identity.get("binding")
    if binding == "verified":
        return []
    note = clean(identity.get("binding_note") or "").rstrip(".")
    why = f" ({note})" if note else ""
    if binding == "declared" or identity.get("uri"):
        return [
            Limit(
                "The stored model.",
                (f"That the explained model is the stored one was declared, not compared{why}.",),
            )
        ]
    return [Limit("The stored model.", ("This explanation is not tied to a stored model.",))]
