"""CatBoost's codes of categories: what its trees compare in their place, column by column.

A category is compared for equality (one-hot), or its statistics (CTR) are compared with borders. Either is a function of
that column alone, unless statistics are of a combination of columns. What a row's category comes to is not computed here: of
a symmetric tree, the bits of a leaf's number are the answers to its splits, and CatBoost tells the leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explain_step.errors import NotApplicable
from explain_step.types import FloatArray

Split = Mapping[str, Any]
ROWS = 10_000
"""Rows whose leaves are held at once, for every tree."""
COMBINED = (
    "CatBoost's trees split on statistics of combinations of columns, which no single column answers; "
    "max_ctr_complexity=1 trains without them"
)
GROWN_APART = "CatBoost's codes of categories are read from symmetric trees alone, not from those of other grow policies"


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A number that stands for a category: how many of its questions are answered with yes.

    Attributes
    ----------
    column : int
        Position of the category's column among the model's.
    places : tuple of (int, int)
        For each question, from the lowest border up: a tree and the level of that tree which asks it.
    """

    column: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Codes:
    """Every code that the trees of a model compare.

    Attributes
    ----------
    codes : tuple of Code
    questions : mapping of int to (int, float)
        For the number of a split: its code, and the threshold that the code exceeds where the answer is yes.
    """

    codes: tuple[Code, ...] = ()
    questions: Mapping[int, tuple[int, float]] = field(default_factory=dict)

    def encode(self, native: Any, inputs: Any, *, wanted: Sequence[int]) -> FloatArray:
        """Return the wanted codes of n rows: (codes, n)."""
        n = len(inputs)
        found = np.zeros((len(wanted), n))
        for start in range(0, n if len(wanted) else 0, ROWS):
            part = inputs[start : start + ROWS]
            leaves = np.asarray(native.calc_leaf_indexes(part), dtype=np.int64)
            for row, code in enumerate(wanted):
                for tree, level in self.codes[code].places:
                    found[row, start : start + len(leaves)] += (leaves[:, tree] >> level) & 1
        return found


def read(dump: Mapping[str, Any]) -> Codes:
    """Return the codes that the trees of a dumped model compare.

    Raises
    ------
    NotApplicable
        A tree splits on a combination of columns, on texts or embeddings, or is not symmetric.
    """
    asked = _asked(dump)
    if not asked:
        return Codes()
    columns = {
        c["feature_index"]: int(c["flat_feature_index"])
        for c in dump["features_info"]["categorical_features"]
    }
    statistics = tuple(_statistics(dump))
    questions: dict[tuple[int, ...], list[tuple[float, int]]] = {}
    of: dict[tuple[int, ...], int] = {}
    for number, (split, _) in asked.items():
        key, column, border = _question(split, statistics=statistics, columns=columns)
        questions.setdefault(key, []).append((border, number))
        of[key] = column
    codes: list[Code] = []
    found: dict[int, tuple[int, float]] = {}
    for at, (key, listed) in enumerate(sorted(questions.items())):
        numbers = [number for _, number in sorted(listed)]
        codes.append(Code(column=of[key], places=tuple(asked[number][1] for number in numbers)))
        found |= {number: (at, rank + 0.5) for rank, number in enumerate(numbers)}
    return Codes(codes=tuple(codes), questions=found)


def _asked(dump: Mapping[str, Any]) -> dict[int, tuple[Split, tuple[int, int]]]:
    """Return every split that is not on a number, by its number, and a tree and level that has it."""
    found = {}
    for tree, grown in enumerate(dump.get("oblivious_trees", [])):
        for level, split in enumerate(grown.get("splits") or []):
            if split["split_type"] != "FloatFeature":
                found[int(split["split_index"])] = (split, (tree, level))
    todo = list(dump.get("trees", []))
    while todo:
        node = todo.pop()
        if "split" in node:
            if node["split"]["split_type"] != "FloatFeature":
                raise NotApplicable(GROWN_APART)
            todo += [node["left"], node["right"]]
    return found


def _statistics(dump: Mapping[str, Any]) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Yield number of the first split, position and description of each statistic; splits are numbered in this order."""
    info = dump["features_info"]
    first = sum(len(f.get("borders") or []) for f in info.get("float_features", []))
    first += sum(len(c.get("values") or []) for c in info.get("categorical_features", []))
    for at, statistic in enumerate(info.get("ctrs", [])):
        yield first, at, statistic
        first += len(statistic["borders"])


def _question(
    split: Split, *, statistics: Sequence[tuple[int, int, Mapping[str, Any]]], columns: Mapping[int, int]
) -> tuple[tuple[int, ...], int, float]:
    """Return what code a split asks about, its column, and the border."""
    if split["split_type"] == "OneHotFeature":
        category = int(split["cat_feature_index"])
        return (0, category, int(split["value"])), columns[category], 0.0
    if split["split_type"] != "OnlineCtr":
        msg = f"a CatBoost tree has a split of type {split['split_type']!r}, which the exact explainer does not read"
        raise NotApplicable(msg)
    number, border = int(split["split_index"]), float(split["border"])
    first, at, statistic = next(s for s in reversed(statistics) if s[0] <= number)
    borders = statistic["borders"]
    if not (number - first < len(borders) and float(borders[number - first]) == border):
        msg = "CatBoost's format numbers its splits in another way than is known here"
        raise NotApplicable(msg)
    elements = statistic["elements"]
    if len(elements) != 1 or elements[0].get("combination_element") != "cat_feature_value":
        raise NotApplicable(COMBINED)
    return (1, at), columns[int(elements[0]["cat_feature_index"])], border
