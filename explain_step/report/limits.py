"""What was not checked: a list made from the facts, so that silence is not read as approval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from explain_step.report.format import Part, Text, clean, is_number, listing, number, plural
from explain_step.report.sentences import perturbation, sentence
from explain_step.report.tables import Labels, words
from explain_step.types import Artifact

MAX_NAMED = 6
MAX_SETS = 3
WHOLE = "(all rows)"
CORRELATED = {
    "interventional": "Inputs are replaced without regard to the others, so also into combinations that may never occur.",
    "correlation_dependent": "Inputs that are not known are expected from the known ones by linear regression, so that "
    "an input has credit also for what it tells of others, even one that the model does not use. Partial dependence, "
    "interactions and the loss when an input is shuffled ask what the model does with it instead.",
}


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
    missing: Mapping[str, str],
    labels: Labels,
) -> tuple[Limit, ...]:
    """Return what was not checked: what no such page can tell, then what follows from this one's facts.

    Parameters
    ----------
    quantity, identity, artifacts
        As in `explain_step.report.PageContext`.
    codes : frozenset of str
        Codes of the caveats.
    missing : mapping of str to str
        Parts that could not be made and have no place of their own on the page, and why.
    labels : Labels
    """
    return (
        *_always(quantity),
        _correlation(quantity, artifacts, labels=labels),
        _fairness(artifacts, labels=labels),
        *_sampling(quantity),
        _truth(artifacts),
        *_binding(identity),
        *_hidden(codes),
        *(Limit("Missing.", (sentence(f"{words(name)}: {reason}"),)) for name, reason in missing.items()),
    )


def _always(quantity: Mapping[str, Any]) -> tuple[Limit, ...]:
    rows = plural(int(quantity.get("rows") or 0), "row")
    named = clean(quantity.get("background") or "the background")
    facts = {
        "Causes.": "Contributions describe this model. They do not say what would happen in the world if an "
        "input were changed.",
        "Other data.": f"Nothing here speaks of values or combinations that do not occur among the {rows} "
        "explained, nor of later data.",
        "Held-out rows.": "That the model has not seen these rows in training is the caller's word.",
        "Another training.": "Intervals cover which rows were drawn. They do not cover refitting the model "
        "on other rows or with another seed.",
        "Another background.": f"Contributions are measured against {named}. Other background rows would "
        "give other numbers; none were tried.",
    }
    return tuple(Limit(title, (text,)) for title, text in facts.items())


def _correlation(quantity: Mapping[str, Any], artifacts: Mapping[str, Artifact], *, labels: Labels) -> Limit:
    title = "Correlated inputs."
    body = CORRELATED[perturbation(quantity)]
    clusters = artifacts.get("importance_clusters")
    sets = cluster_members(clusters) if clusters is not None else []
    if not sets:
        return Limit(title, (body,))
    named: list[Part] = []
    for k, members in enumerate(sets[:MAX_SETS]):
        named += ["; "] if k else []
        named += listing([labels.of(f) for f in members[:MAX_NAMED]])
    more = f" and {len(sets) - MAX_SETS} further sets" if len(sets) > MAX_SETS else ""
    end = f"{more}: these move together, and how credit is split between them is a convention."
    return Limit(title, (f"{body} Here that concerns ", *named, end))


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
    names = (
        []
        if segments is None
        else [n for n in dict.fromkeys(map(str, segments.table["segment"])) if n != WHOLE]
    )
    if not names:
        text = "No groups of rows were compared, so nothing here says whether the model treats groups alike."
        return Limit("Fairness.", (text,))
    shown: Sequence[Part] = [labels.of(n) for n in names[:MAX_NAMED]]
    more = [f"{len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    end = ". Other groups, smaller ones and their combinations were not, and no verdict on fairness is given."
    return Limit("Fairness.", ("Groups were compared only by ", *listing([*shown, *more]), end))


def _sampling(quantity: Mapping[str, Any]) -> list[Limit]:
    found = []
    rows, given = int(quantity.get("rows") or 0), int(quantity.get("rows_given") or 0)
    if rows < given:
        found.append(
            Limit("The other rows.", (f"{given - rows:,} of the {given:,} rows given were not explained.",))
        )
    sample = quantity.get("sample_rows")
    if sample is not None:
        text = (
            f"Contributions were made and checked for every row; what is no sum over rows (examples, scores, curves of "
            f"the output; with Spark the search for weak groups too) is of a seeded sample of {int(sample):,} of them."
        )
        found.append(Limit("All rows and a sample.", (text,)))
    if not quantity.get("exact", True):
        error = quantity.get("typical_error")
        size = f"each typically to within \u00b1{number(error, digits=2)}" if is_number(error) else ""
        close = (
            f"{size}; intervals of the average effects allow for that" if size else "how closely is not known"
        )
        found.append(Limit("Exact values.", (f"Contributions are estimated, {close}.",)))
    return found


def _truth(artifacts: Mapping[str, Artifact]) -> Limit:
    if "performance" in artifacts:
        return Limit("Labels.", ("Performance takes the given labels as true.",))
    return Limit("Performance.", ("Whether the predictions are right was not measured.",))


def _binding(identity: Mapping[str, Any]) -> list[Limit]:
    binding = identity.get("binding")
    if binding == "verified":
        return []
    if not identity.get("uri") and not identity.get("model_id"):
        return [Limit("Stored model.", ("This explanation is not tied to a stored model.",))]
    note = clean(identity.get("binding_note") or "").rstrip(".")
    text = "That the explained model is the stored one was declared by the caller and not compared"
    return [Limit("Stored model.", (f"{text}{': ' + note if note else ''}.",))]


def _hidden(codes: frozenset[str]) -> list[Limit]:
    if not any("redact" in code or "privacy" in code or "strict" in code for code in codes):
        return []
    return [
        Limit("Hidden values.", ("Some values are withheld for privacy; what they would show is not here.",))
    ]
