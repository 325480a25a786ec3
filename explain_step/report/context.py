"""What a page is made from: the facts of one explanation, computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from explain_step.types import Artifact, Caveat, Figure, Score, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class PageContext:
    """Everything that `page` and `card` show; nothing is computed from data here.

    Attributes
    ----------
    title : str
        Name of the model for readers.
    identity : mapping of str to str or None
        Which model this is: ``name``, ``version``, ``run_id``, ``model_id``, ``uri``, ``model_class``,
        ``digest``, ``binding`` (``verified`` or ``declared``), ``binding_note``.
    status : Status
    reason : str
        Why the status is what it is.
    quantity : mapping
        As `explain_step.quantity.quantity` makes it.
    artifacts : mapping of str to Artifact
        By name: ``performance``, ``importance``, ``dependence``, ``segments``, ``examples``, ``scores``, …
    scores : tuple of Score
    figures : tuple of Figure
        In the order to show.
    caveats : tuple of Caveat
    missing : mapping of str to str
        Section that could not be made, and why.
    reproducibility : mapping
        ``snapshot_id``, digests (hexadecimal, any key), ``seed``, ``packages`` (name to version), and further
        facts; nested mappings are opened.
    labels : mapping of str to str
        Reader names of raw columns.
    """

    title: str
    identity: Mapping[str, str | None]
    status: Status
    reason: str
    quantity: Mapping[str, Any]
    artifacts: Mapping[str, Artifact]
    scores: tuple[Score, ...] = ()
    figures: tuple[Figure, ...] = ()
    caveats: tuple[Caveat, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    reproducibility: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
