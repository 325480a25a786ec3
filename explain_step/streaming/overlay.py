"""The tables of a sample's explanation with the numbers of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from explain_step.config import Config
from explain_step.streaming.plan import Plan
from explain_step.streaming.totals import Totals
from explain_step.types import Artifact


def overlay(
    artifacts: Sequence[Artifact], plan: Plan, totals: Totals, *, config: Config
) -> tuple[Artifact, ...]:
    """Return the sample's artifacts, with the numbers of all rows where `totals` has them; ``meta`` says which.

    Parameters
    ----------
    artifacts : sequence of Artifact
        Of the sample's explanation, from which the plan was made.
    plan : Plan
    totals : Totals
        Of all rows.
    config : Config
    """
    del plan, config
    return tuple(
        replace(a, meta={**a.meta, "quantity": {**a.meta.get("quantity", {}), "rows_given": totals.rows}})
        for a in artifacts
    )
