"""Full enumeration: exact interventional Shapley values of any model, where all mixed rows can be predicted.

Either all coalitions of the columns are asked for (`coalition_games`), which is little for few columns with few distinct
values, or all coalitions of each pair of an explained and a background row (`pair_games`), which is little for few rows
that agree in many columns. The way with fewer predictions is taken; the values are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import coalition_games, masking, pair_games
from explain_step.explainers.masking import Clock, Pool
from explain_step.seeds import Seeds
from explain_step.types import Attributions, MethodSpec, Subject

VERSION = "2"
PREDICTIONS = 2_000_000
OUTPUTS = 30_000_000
"""Numbers that all predictions may return together."""


@dataclass(frozen=True, slots=True)
class Enumeration:
    """The explainer for any model on small problems."""

    name: str = "enumeration"

    def why_not(self, subject: Subject) -> str | None:
        """Return why the coalitions cannot all be predicted, or None where they can."""
        pool = masking.pool(subject.model, subject.X, subject.background)
        outputs = len(subject.model.output_names)
        if min(_predictions(pool, outputs=outputs)) <= _most(outputs):
            return None
        columns = int(pool.varying().sum())
        return (
            f"the coalitions of {columns} varying columns, for {pool.n:,} rows against {pool.m:,} background rows, "
            f"need more than {_most(outputs):,} predicted rows"
        )

    def explain(self, subject: Subject, *, config: Config, seeds: Seeds) -> Attributions:
        """Return exact attributions of all rows.

        Raises
        ------
        NotApplicable
            The model is so slow that ``config.budget`` seconds do not suffice.
        """
        model, clock = subject.model, Clock(config.budget)
        pool = masking.pool(model, subject.X, subject.background)
        by_coalition, by_pair = _predictions(pool, outputs=len(model.output_names))
        rows = min(by_coalition, by_pair)
        if masking.affordable(model, subject.X, rows=rows, seconds=clock.budget) < rows:
            msg = f"{clock.budget:.3g} s are not enough for {rows:,} predicted rows"
            raise NotApplicable(msg)
        pool = masking.with_derived(pool)
        if by_coalition <= by_pair:
            found = coalition_games.values(pool, clock=clock)
        else:
            found = pair_games.values(pool, end=subject.response.output, clock=clock)
        return Attributions(
            values=found.values,
            base_values=np.tile(found.base, (pool.n, 1)),
            feature_names=model.feature_names,
            output_names=model.output_names,
            output_space=model.output_space,
            rows=np.arange(pool.n, dtype=np.int64),
            method=MethodSpec(
                name=self.name,
                version=VERSION,
                params={
                    "rows": pool.n,
                    "games": found.games,
                    "predicted_rows": found.predicted,
                    "background_rows": pool.m,
                },
            ),
        )


def _most(outputs: int) -> int:
    return min(PREDICTIONS, OUTPUTS // outputs)


def _predictions(pool: Pool, *, outputs: int) -> tuple[int, int]:
    """Return the predicted rows of both ways, by coalition and by pair; one more than is allowed where it is more."""
    most = _most(outputs)
    counts = (
        coalition_games.predictions(pool, outputs=outputs, most=most),
        pair_games.predictions(pool, most=most),
    )
    by_coalition, by_pair = (most + 1 if count is None else count for count in counts)
    return by_coalition, by_pair


ENUMERATION = Enumeration()
