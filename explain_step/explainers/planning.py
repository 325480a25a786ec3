"""How many rows to explain, and how many pairs of walks each: a fixed amount of work, from counts alone."""

from __future__ import annotations

from explain_step.explainers.growing import Plan
from explain_step.explainers.walks import MIN_PAIRS

DEFAULT_ROWS = 2_000
EVALUATIONS = 500_000
"""Mixed rows predicted at most. Half a million take a minute with a model that needs 0.1 ms for a row.

Measured on 714 mortgage applications (13 columns, 58 pairs), mean of four seeds: one value is off by 6% (forest)
to 11% (boosted trees in probability, neural network) of a typical value. Of the sum over columns, a column's mean
absolute value is off by at most 0.24%, all together by 1.2%, upwards; after `artifacts.noise_correction` by at most
0.12% and 0.5%. The truth was exact for the forest and for boosted trees in log-odds, else 1,200 pairs.
"""
CELLS = 2_000_000_000
VALUES = 20_000_000
MAX_PAIRS = 400
GOOD_PAIRS = 50
"""Fewer rows are explained rather than fewer pairs drawn, down to `GOOD_ROWS` rows."""
GOOD_WALKED_PAIRS = 20
MOST_WALKED_PAIRS = 100
"""The same where the sum behind the output is known: pairs are more precise, and all rows are wanted rather."""
GAIN = 2
"""Sums are read only where they pay for so many times the pairs that predictions do: quick models are asked."""
WALKED_VALUES = 6_000_000
"""Contributions to output and sum then, at most: 48 MB, and a few copies."""
GOOD_ROWS = 500
MIN_ROWS = 10


def plan(
    *, n: int, m: int, columns: int, width: int, outputs: int, max_rows: int | None, walked: int | None = None
) -> Plan:
    """Return how many rows and pairs to spend a fixed amount of work on.

    Parameters
    ----------
    n, m : int
        Explained and background rows.
    columns : int
        Columns in which an explained row and a background row differ on average; the others cost nothing.
    width : int
        All columns: what a mixed row costs in memory.
    outputs : int
    max_rows : int, optional
        At most this many rows; `DEFAULT_ROWS`, or with ``walked`` all, when not given.
    walked : int, optional
        Pairs that are worth their time where they cost no predictions; else `EVALUATIONS` predictions are.

    Examples
    --------
    >>> plan(n=714, m=1666, columns=12, width=12, outputs=1, max_rows=None)
    Plan(rows=500, pairs=45)
    >>> plan(n=10_000, m=1000, columns=30, width=30, outputs=1, max_rows=None)
    Plan(rows=500, pairs=17)
    >>> plan(n=714, m=80, columns=12, width=12, outputs=1, max_rows=None)
    Plan(rows=500, pairs=80)
    """
    units = predicted_pairs(columns=columns, width=width, outputs=outputs)
    good, most, rows = GOOD_PAIRS, MAX_PAIRS, DEFAULT_ROWS
    if walked is not None:
        units = max(1, min(walked, WALKED_VALUES // (2 * width * outputs)))
        good, most, rows = GOOD_WALKED_PAIRS, MOST_WALKED_PAIRS, n
    rows = min(n, max_rows or rows)
    if rows * good > units:
        rows = min(rows, max(GOOD_ROWS, units // good))
    pairs = min(max(units // max(rows, 1), MIN_PAIRS), most)
    if rows * pairs > units:
        rows = min(rows, max(MIN_ROWS, units // pairs))
    if pairs < m <= min(2 * pairs, MAX_PAIRS):
        pairs = m  # one whole round: up to twice the predictions, for a half to a seventh of the error
    if pairs >= m:
        pairs -= pairs % m  # whole rounds of a small background leave no residual at all
    return Plan(rows=rows, pairs=pairs)


def predicted_pairs(*, columns: int, width: int, outputs: int) -> int:
    """Return the pairs of walks that a fixed number of predictions pays for; see `plan`.

    Examples
    --------
    >>> predicted_pairs(columns=12, width=12, outputs=1)
    22727
    """
    evaluations = min(EVALUATIONS, CELLS // max(width, 1), VALUES // outputs)
    return max(1, evaluations // (2 * max(columns - 1, 1)))
