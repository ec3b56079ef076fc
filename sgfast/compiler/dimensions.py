"""Join the classes that the rules of one table do not distinguish, for peers or for services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.classify.classifier import divide, narrow

Indices = NDArray[np.int64]

#: Identifies what a rule matches in one dimension. Equal selectors match the same classes.
Selector = tuple[object, ...]

#: The bytes kept for each class that a selector matches: a class number, a joined class and the selector's row.
_BYTES_PER_MATCH = 16


class Dimension:
    """The joined classes of one table. Immutable: ``extended`` makes new ones.

    Selectors are only added. Classes that a removed rule distinguished stay apart until the table is built anew. A
    class that was divided from another one later is joined with the same classes as that one.
    """

    def __init__(self, classes: int) -> None:
        """All classes are joined, and there are no selectors yet."""
        #: An array that ``narrow`` made: the joined class of each class that there was when the dimension was made.
        self.of_class: NDArray[Any] = np.zeros(classes, dtype=np.uint16)
        #: The number of joined classes.
        self.count = 1
        #: The row of each selector.
        self.row: dict[Selector, int] = {}
        # Pairs of a joined class and the row of a selector that matches it, in no order.
        self._matched: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._by: NDArray[np.int32] = np.zeros(0, dtype=np.int32)

    def extended(
        self, selectors: Mapping[Selector, Callable[[], Indices]], class_origin: NDArray[np.uint32],
        take: Callable[[int], None],
    ) -> tuple[Dimension, Indices]:  # fmt: skip
        """The dimension that distinguishes these selectors, too; and for each of its joined classes the earlier one
        that it is part of.

        ``selectors`` give the classes that each matches. ``class_origin``: for each class, the lower one that it was
        divided from, or itself. ``take`` gets the number of bytes that are needed, and may refuse by raising.
        """
        news = {selector: classes for selector, classes in selectors.items() if selector not in self.row}
        if not news:
            return self, np.arange(self.count)
        later = Dimension(0)
        later.row = self.row | {selector: len(self.row) + n for n, selector in enumerate(news)}
        take(4 * len(class_origin))
        matching = []
        for find in news.values():
            classes = find()
            take(_BYTES_PER_MATCH * len(classes))
            matching.append(classes)
        of_class = self._origin_of_all_classes(class_origin)
        origin, found, lengths = divide(of_class, self.count, matching)
        later.of_class = narrow(of_class)
        take(later.of_class.nbytes - of_class.nbytes)
        later.count = len(origin)
        matched, by = self._with_parts(origin[self.count :], take)
        rows = np.arange(len(self.row), len(later.row), dtype=np.int32)
        later._matched = np.concatenate([matched, found])
        later._by = np.concatenate([by, np.repeat(rows, lengths)])
        return later, origin

    def _origin_of_all_classes(self, class_origin: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """A copy of ``of_class`` that has all classes."""
        of_class = self.of_class.astype(np.uint32)
        known = len(of_class)
        earlier = class_origin[known:]
        while (late := earlier >= known).any():
            earlier = np.where(late, class_origin[earlier], earlier)
        return np.concatenate([of_class, of_class[earlier]])

    def _with_parts(
        self, origin: Indices, take: Callable[[int], None]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Pairs of joined class and selector's row, if new joined classes are parts of those in ``origin``."""
        parts = np.bincount(origin, minlength=self.count)
        more = parts[self._matched]
        total = int(more.sum())
        if not total:
            return self._matched, self._by
        take(_BYTES_PER_MATCH * total)
        # ``part`` lists the new classes, sorted by the joined class that they come from. Each pair is repeated for the
        # parts of its joined class: ``begins`` is their first place in ``part``, ``run`` counts from there.
        part = (np.argsort(origin, kind="stable") + self.count).astype(np.int32)
        begins = (np.cumsum(parts) - parts)[self._matched]
        run = np.arange(total) - np.repeat(np.cumsum(more) - more, more)
        return (
            np.concatenate([self._matched, part[np.repeat(begins, more) + run]]),
            np.concatenate([self._by, np.repeat(self._by, more)]),
        )

    def matching(self, row: int) -> NDArray[np.int32]:
        """The joined classes that the selector of a row matches."""
        found: NDArray[np.int32] = self._matched[self._by == row]
        return found

    def matching_each(self) -> list[NDArray[np.int32]]:
        """The joined classes that each selector matches, by row."""
        in_order = self._matched[np.argsort(self._by, kind="stable")]
        ends = np.cumsum(self.matches()).tolist()
        return [in_order[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def matches(self) -> Indices:
        """Number of joined classes that each selector matches, by row."""
        return np.bincount(self._by, minlength=len(self.row))

    def touching(self, joined: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each selector, by row, matches any of these joined classes."""
        among = np.zeros(self.count, dtype=bool)
        among[joined] = True
        touches = np.zeros(len(self.row), dtype=bool)
        touches[self._by[among[self._matched]]] = True
        return touches
