"""Whether a model that was given as an object is the recorded one: by what it answers, for it has no files to digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explain_step.replay_inputs import changed_columns
from explain_step.replay_result import InputDifference
from explain_step.snapshot.comparison import compare_table
from explain_step.snapshot.read import ATTRIBUTIONS

if TYPE_CHECKING:
    from explain_step.snapshot import Snapshot

ANSWERING = frozenset({"task", "output", "positive_class", "class_names"})
"""Options that say what is asked of the model."""
KEYS = ["row_id", "output"]
UNTOLD = (
    "the rows, or what was asked of the model, are others: its answers do not tell whether it is the recorded one; "
    "the model's files (a URI or directory) do"
)

Found = tuple[InputDifference, ...]


def model_told(
    shot: Snapshot,
    again: Snapshot,
    found: Found,
    *,
    renamed: Mapping[str, pd.DataFrame],
    digested: bool,
    redrawn: bool = False,
) -> tuple[Found, tuple[str, ...]]:
    """Return the model as differing input where its answers say so, and a note where they cannot tell.

    Parameters
    ----------
    shot, again : Snapshot
        Recorded and recomputed.
    found : tuple of InputDifference
        What differs as far as it is known: where rows, options or background differ, fewer answers can be compared.
    renamed : mapping of str to DataFrame
        The recomputed tables with the recorded names of rows.
    digested : bool
        Whether the model's files were read and have the recorded digest: what answers otherwise is then not the model
        but what it runs in.
    redrawn : bool
        Whether another sample of the same rows was drawn: the answers on the rows of both are compared.
    """
    if any(d.input == "model" for d in found):
        return (), ()
    sampled = any(d.input in ("config", "seed") for d in found)
    tables = again.tables if sampled else renamed  # rows of two samples are no pairs
    ours, theirs = shot.tables.get(ATTRIBUTIONS), tables.get(ATTRIBUTIONS)
    if ours is None or theirs is None:
        return (), ()
    if redrawn:
        ours, theirs = (a[a["row_id"].isin(b["row_id"])] for a, b in ((ours, theirs), (theirs, ours)))
    if _same_rows(shot, again, found, ours, theirs):
        return tuple(
            _told("the recorded rows", _difference(ours, theirs, "prediction"), digested=digested)
        ), ()
    background = _same_background(shot, again, found)
    other = tuple(
        _told(
            "the recorded background",
            _difference(ours, theirs, "base_value") if background else None,
            digested=digested,
        )
    )
    return other, () if other or digested else (UNTOLD,)


def is_redrawn(shot: Snapshot, again: Snapshot) -> bool:
    """Tell whether another sample of the same rows was explained: such rows agree by their names, not by their places.

    A sample is spread over the model's output, so that it is another where another library moves that a little. With
    another index of the rows alone they agree by their places.
    """
    ours, theirs = shot.tables.get(ATTRIBUTIONS), again.tables.get(ATTRIBUTIONS)
    if (
        ours is None
        or theirs is None
        or len(ours) != len(theirs)
        or list(ours["row_id"]) == list(theirs["row_id"])
    ):
        return False
    named = ours.merge(theirs, on=KEYS, suffixes=("", "_again"))
    by_place = np.abs(ours["prediction"].to_numpy() - theirs["prediction"].to_numpy())
    by_name = (named["prediction"] - named["prediction_again"]).abs()
    return len(named) > 0 and float(by_name.median()) < float(np.median(by_place))


def _told(of: str, reason: str | None, *, digested: bool) -> Iterator[InputDifference]:
    if reason is None:
        return
    if digested:
        message = f"the model has the recorded files, and answers otherwise here on {of}: {reason}"
        yield InputDifference(input="environment", message=message)
    else:
        yield InputDifference(input="model", message=f"it answers otherwise on {of}: {reason}")


def _difference(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> str | None:
    before, now = (
        t[[*KEYS, column]]
        if column == "prediction"
        else t.groupby("output", as_index=False)[[column]].first()
        for t in (ours, theirs)
    )
    answers = compare_table(before, now, name="predictions", same_environment=False)
    return answers.reason if answers.verdict == "different" else None


def _same_rows(
    shot: Snapshot, again: Snapshot, found: Found, ours: pd.DataFrame, theirs: pd.DataFrame
) -> bool:
    """Tell whether the model was asked the same about the same rows; columns that it does not read may be others."""
    if _asked_otherwise(found):
        return False
    if any(d.facts.get("key") == "digest" for d in found):
        changed = changed_columns(_data(shot), _data(again))
        read = {name.removeprefix("shap:") for name in ours.columns if name.startswith("shap:")}
        if not changed or read & set(changed):
            return False
    return len(ours) == len(theirs) and set(ours["row_id"]) == set(theirs["row_id"])


def _asked_otherwise(found: Found) -> bool:
    return bool(ANSWERING & {str(d.facts.get("option")) for d in found})


def _same_background(shot: Snapshot, again: Snapshot, found: Found) -> bool:
    """Tell whether the mean answer over the background, which is the base value, is that of the same rows."""
    before, now = _data(shot), _data(again)
    given = before.get("background_digest")
    return (
        not _asked_otherwise(found)
        and given is not None
        and given == now.get("background_digest")
        and given != before.get("digest")
        and all(_is_exact(of) for of in (shot, again))
    )


def _is_exact(shot: Snapshot) -> bool:
    """Whether the attributions are exact: an estimate may take part of the background, by the number of rows."""
    return any(m.get("of") == ATTRIBUTIONS and m.get("exact") for m in shot.manifest["methods"])


def _data(shot: Snapshot) -> Mapping[str, Any]:
    data: Mapping[str, Any] = shot.manifest["data"]
    return data
