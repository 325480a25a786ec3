"""Randomness: one seed, one independent child per (stage, name), the caller's global generator untouched."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np


@dataclass(frozen=True, slots=True)
class Seeds:
    """Named child generators of one seed: adding a consumer changes no other consumer's numbers.

    Examples
    --------
    >>> bool(Seeds(0).rng("a").random() == Seeds(0).rng("a").random())
    True
    >>> bool(Seeds(0).rng("a").random() == Seeds(0).rng("b").random())
    False
    """

    seed: int
    drawn: set[tuple[str, ...]] = field(default_factory=set, repr=False, compare=False)
    """Consumers so far, for the record."""

    def rng(self, *names: str) -> np.random.Generator:
        """Return the generator of the consumer called ``names``."""
        self.drawn.add(names)
        return np.random.default_rng(np.random.SeedSequence([self.seed, *(crc32(n.encode()) for n in names)]))

    def consumers(self) -> dict[str, int]:
        """Return how many generators each stage was given. Further names may be values of data and are left out."""
        return dict(sorted(Counter(names[0] for names in self.drawn if names).items()))

    def integer(self, *names: str) -> int:
        """Return a 31-bit seed for libraries that want an integer."""
        return int(self.rng(*names).integers(2**31 - 1))


@contextmanager
def caller_state_kept() -> Iterator[None]:
    """Undo what a model that is asked draws from the global generators; inside, numbers fail as NumPy's default has it.

    A caller who turned underflow into an error would otherwise lose a section to it.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - the caller's own
    try:
        with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
