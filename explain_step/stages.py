"""The stages of the step: a journal of what each one did and took, and a purse that shares the budget among them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from explain_step import heartbeat
from explain_step.config import Config
from explain_step.errors import NotApplicable

LEFT = 0.05
"""Part of the budget that the stages may share however much was spent before them."""
SHARES = {"attributions": 10, "importance": 3, "dependence": 3, "interactions": 2, "scores": 2}
"""The stages that ask the model about rows of their own making, and the parts of the budget they may spend."""


@dataclass(slots=True)
class Journal:
    """The step's log: what was done, in which order, how long it took, with which result."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def include(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Record what another journal has."""
        self.events += [{**event, "seq": len(self.events) + i} for i, event in enumerate(events)]

    @contextmanager
    def stage(self, name: str, **facts: Any) -> Iterator[None]:
        """Record one stage, whatever its outcome."""
        wall, cpu = time.perf_counter(), time.process_time()
        status = "failed"
        try:
            yield
            status = "ok"
        except NotApplicable:
            status = "not_applicable"
            raise
        finally:
            self.events.append(
                {
                    "schema_version": 1,
                    "seq": len(self.events),
                    "ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "step": name,
                    "event": "end",
                    "wall_s": round(time.perf_counter() - wall, 4),
                    "cpu_s": round(time.process_time() - cpu, 4),
                    "rss_bytes": _resident(),
                    "rows": None,
                    "status": status,
                    **facts,
                }
            )


@dataclass(slots=True)
class Purse:
    """The budget of the step: each stage may spend its share of what is left, so that all together keep to it."""

    config: Config
    spent: float = 0.0
    waiting: dict[str, int] = field(default_factory=lambda: dict(SHARES))

    def for_stage(self, name: str) -> Config:
        """Return the options with the stage's budget; a stage without a share may not need one."""
        share = self.waiting.get(name)
        if share is None:
            return self.config
        left = max(self.config.budget - self.spent, LEFT * self.config.budget)
        allowed = left * share / sum(self.waiting.values())
        return self.config.model_copy(update={"budget": allowed})

    @contextmanager
    def stage(self, name: str) -> Iterator[Config]:
        """Give the stage its options and count the seconds that it takes; see `heartbeat`."""
        if name not in self.waiting:
            yield self.config
            return
        with heartbeat.HEART.beating():
            began = heartbeat.now()
            try:
                yield self.for_stage(name)
            finally:
                del self.waiting[name]
                self.spent += heartbeat.now() - began

    def refund(self, seconds: float) -> None:
        """Take back what was exact work, which has no budget, unless it asked the model."""
        self.spent -= seconds


def _resident() -> int | None:
    """Return the memory that this process holds now, where the platform tells."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
