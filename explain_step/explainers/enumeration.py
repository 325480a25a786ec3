"""Full enumeration: exact interventional Shapley values of any model, for few columns and few distinct rows.

``v(S)`` is computed for all 2^d coalitions S (Shapley 1953) as the mean output over all background rows, with
the columns of S taken from the explained row. Equal mixed rows within a coalition are predicted once: only
the distinct values of the explained rows in S meet the distinct values of the background rows outside S.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np

from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import masking
from explain_step.explainers.masking import BoolArray, Clock, Pool
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FloatArray, IntArray, MethodSpec, Subject

VERSION = "1"
COLUMNS = 10
PREDICTIONS = 2_000_000
VALUES = 30_000_000
"""Largest table of coalition values (distinct explained rows x coalitions x outputs)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coalition:
    """The distinct mixed rows of one coalition: each of ``shown`` meets each of ``others``.

    Attributes
    ----------
    mask : ndarray of bool of shape (d,)
        The columns taken from the explained row.
    shown, others : ndarray of int
        First explained row and first background row of each distinct value.
    member : ndarray of int of shape (n,)
        Which of ``shown`` each explained row is.
    share : ndarray of shape (len(others),)
        Share of the background rows.
    """

    mask: BoolArray
    shown: IntArray
    others: IntArray
    member: IntArray
    share: FloatArray


@dataclass(frozen=True, slots=True)
class Enumeration:
    """The explainer for any model on small problems."""

    name: str = "enumeration"

    def why_not(self, subject: Subject) -> str | None:
        """Return why the coalitions cannot all be predicted, or None where they can."""
        store = masking.pool(subject.model, subject.X, subject.background)
        varying = np.flatnonzero(store.varying())
        if len(varying) > COLUMNS:
            return (
                f"{len(varying)} varying columns have too many coalitions (enumeration takes up to {COLUMNS})"
            )
        outputs = len(subject.model.output_names)
        if len(np.unique(store.codes[: store.n], axis=0)) * 2 ** len(varying) * outputs > VALUES:
            return f"the values of all coalitions of {store.n:,} rows do not fit in memory"
        count = 0
        for mask in coalitions(store.codes.shape[1], varying):
            part = distinct(store, mask)
            count += len(part.shown) * len(part.others)
            if count > PREDICTIONS:
                return f"all coalitions together need more than {PREDICTIONS:,} predicted rows"
        return None

    def explain(self, subject: Subject, *, config: Config, seeds: Seeds) -> Attributions:
        """Return exact attributions of all rows.

        Raises
        ------
        NotApplicable
            The model is so slow that ``config.budget`` seconds do not suffice.
        """
        model = subject.model
        store = masking.pool(model, subject.X, subject.background)
        varying = np.flatnonzero(store.varying())
        store = masking.with_derived(store)
        parts = [distinct(store, mask) for mask in coalitions(store.codes.shape[1], varying)]
        game, predicted = coalition_values(store, parts, clock=Clock(config.budget))
        values = np.zeros((store.n, store.codes.shape[1], game.shape[2]))
        values[:, varying] = shapley(game)
        return Attributions(
            values=values,
            base_values=game[:, 0],
            feature_names=model.feature_names,
            output_names=model.output_names,
            output_space=model.output_space,
            rows=np.arange(store.n, dtype=np.int64),
            method=MethodSpec(
                name=self.name,
                version=VERSION,
                params={
                    "rows": store.n,
                    "coalitions": len(parts),
                    "predicted_rows": predicted,
                    "background_rows": store.m,
                },
            ),
        )


def coalitions(columns: int, varying: IntArray) -> BoolArray:
    """Return the masks (2^d, columns) of all subsets of the d varying columns.

    Bit j of a mask's position says whether varying column j is in it.

    Examples
    --------
    >>> coalitions(3, np.array([0, 2])).astype(int).tolist()
    [[0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]]
    """
    masks = np.zeros((2 ** len(varying), columns), dtype=bool)
    masks[:, varying] = (np.arange(len(masks))[:, None] >> np.arange(len(varying))) & 1
    return masks


def distinct(pool: Pool, mask: BoolArray) -> Coalition:
    """Return the distinct mixed rows of the coalition ``mask``."""
    shown, member = _first(pool.codes[: pool.n, mask])
    others, which = _first(pool.codes[pool.n :, ~mask])
    return Coalition(mask=mask, shown=shown, others=others, member=member, share=np.bincount(which) / pool.m)


def _first(codes: IntArray) -> tuple[IntArray, IntArray]:
    """Return the first position of each distinct row, and for each row which distinct one it is."""
    key = np.zeros(len(codes), dtype=np.int64)
    for column in codes.T:
        # renumbered after every column, so that the mixed-radix key cannot overflow
        key = np.unique(key * (int(column.max()) + 2) + column + 1, return_inverse=True)[1].reshape(-1)
    _, first = np.unique(key, return_index=True)
    return first.astype(np.int64), key


def coalition_values(pool: Pool, parts: list[Coalition], *, clock: Clock) -> tuple[FloatArray, int]:
    """Return v(S) of every explained row (n, coalitions, n_outputs) and the number of predicted rows."""
    sizes = np.array([len(p.shown) * len(p.others) for p in parts])
    rows = np.concatenate([np.repeat(p.shown, len(p.others)) for p in parts])
    partners = np.concatenate([np.tile(p.others, len(p.shown)) for p in parts])
    which = np.repeat(np.arange(len(parts)), sizes)
    masks = np.stack([p.mask for p in parts])
    output = masking.evaluate(
        pool, rows=rows, partners=partners, masks=lambda s: masks[which[s]], clock=clock
    )
    if len(output) < len(rows):
        msg = f"{clock.budget:g} s are not enough for the {len(rows):,} predicted rows of all coalitions"
        raise NotApplicable(msg)
    game = np.empty((pool.n, len(parts), output.shape[1]))
    ends = np.cumsum(sizes)
    for s, part in enumerate(parts):
        block = output[ends[s] - sizes[s] : ends[s]].reshape(len(part.shown), len(part.others), -1)
        game[:, s] = np.einsum("abk,b->ak", block, part.share)[part.member]
    return game, len(rows)


def shapley(game: FloatArray) -> FloatArray:
    """Return the Shapley values (n, d, k) of games given by their values of all coalitions (n, 2^d, k).

    Examples
    --------
    >>> shapley(np.array([0.0, 1.0, 1.0, 3.0]).reshape(1, 4, 1)).ravel().tolist()
    [1.5, 1.5]
    """
    n, size, k = game.shape
    d = size.bit_length() - 1
    position = np.arange(size)
    count = np.array([int(s).bit_count() for s in position])
    values = np.empty((n, d, k))
    for j in range(d):
        without = position[(position >> j) & 1 == 0]
        weight = np.array([factorial(c) * factorial(d - c - 1) / factorial(d) for c in count[without]])
        values[:, j] = np.einsum("nsk,s->nk", game[:, without | (1 << j)] - game[:, without], weight)
    return values


ENUMERATION = Enumeration()
