"""Aggregates of any number of rows in bounded memory: a plan from a sample, totals of blocks, tables of all rows.

::

    sample ─▶ explanation ─▶ plan_of() ─┐
    block of rows ─▶ of_block() ─▶ Totals ─▶ merge() ─▶ overlay(): the sample's tables with the numbers of all rows

Totals of blocks merge in any order to the same numbers, up to rounding, and travel as bytes without pickles: the blocks
can be on one machine or on many.
"""

from explain_step.streaming.all_rows import sample_of, taken, totals_of
from explain_step.streaming.areas import Areas
from explain_step.streaming.moments import Moments
from explain_step.streaming.of_measures import Measured
from explain_step.streaming.overlay import SEARCH, caveats, measured_caveats, measured_overlay, overlay
from explain_step.streaming.plan import Curve, Cut, Plan, Segment
from explain_step.streaming.planning import measuring_plan, plan_of, shuffled_losses
from explain_step.streaming.totals import Totals, from_bytes, merge, of_block, to_bytes

__all__ = [
    "SEARCH",
    "Areas",
    "Curve",
    "Cut",
    "Measured",
    "Moments",
    "Plan",
    "Segment",
    "Totals",
    "caveats",
    "from_bytes",
    "measured_caveats",
    "measured_overlay",
    "measuring_plan",
    "merge",
    "of_block",
    "overlay",
    "plan_of",
    "sample_of",
    "shuffled_losses",
    "taken",
    "to_bytes",
    "totals_of",
]
