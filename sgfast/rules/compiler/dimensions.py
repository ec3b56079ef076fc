"""Join the classes that the rules of one table do not distinguish, for peers or for services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.classify.classifier import divide, narrow

Indices = NDArray[np.int64]

#: A key for the peer or the service of a rule. Equal selectors match the same classes.
Selector = tuple[object, ...]

#: The bytes kept for each pair of a selector and a class that it matches: the class number, the joined class and the
#: selector's row.
_BYTES_PER_MATCH = 16


class Dimension:
    """The joined classes of one table, for peers or for services. Immutable: ``extended`` makes a new dimension.

    Selectors are only added. Classes that a removed rule distinguished stay apart until the table is built anew. If a
    class is divided later, its parts belong to the same joined class.
    """

    def __init__(self, classes: int) -> None:
        """Join all ``classes`` classes into one. There are no selectors yet."""
        #: The joined class of each class that existed when the dimension was made, as an array that ``narrow`` made.
        self.of_class: NDArray[Any] = np.zeros(classes, dtype=np.uint16)
        #: The number of joined classes.
        self.count = 1
        #: The row of each selector.
        self.row: dict[Selector, int] = {}
        # Unsorted pairs: a joined class (``_matched``), and the row of a selector that matches it (``_by``).
        self._matched: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._by: NDArray[np.int32] = np.zeros(0, dtype=np.int32)

    def extended(
        self, selectors: Mapping[Selector, Callable[[], Indices]], class_origin: NDArray[np.uint32],
        take: Callable[[int], None],
    ) -> tuple[Dimension, Indices]:  # fmt: skip
        """Make a dimension that also distinguishes these selectors. Return it with the earlier joined class that
        contains each of its joined classes.

        ``selectors``: for each selector, a function that finds the classes it matches. ``class_origin``: for each
        class, the class with a lower number from which it was divided, or itself. ``take`` is called with the number of
        bytes that are needed, and raises if they are too many.
        """
        new_selectors = {selector: classes for selector, classes in selectors.items() if selector not in self.row}
        if not new_selectors:
            return self, np.arange(self.count)
        later = Dimension(0)
        later.row = self.row | {selector: len(self.row) + n for n, selector in enumerate(new_selectors)}
        take(4 * len(class_origin))
        matching = []
        for find in new_selectors.values():
            classes = find()
            take(_BYTES_PER_MATCH * len(classes))
            matching.append(classes)
        of_class = self._origin_of_all_classes(class_origin)
        origin, matched_classes, lengths = divide(of_class, self.count, matching)
        later.of_class = narrow(of_class)
        take(later.of_class.nbytes - of_class.nbytes)
        later.count = len(origin)
        matched, by = self._with_parts(origin[self.count :], take)
        rows = np.arange(len(self.row), len(later.row), dtype=np.int32)
        later._matched = np.concatenate([matched, matched_classes])
        later._by = np.concatenate([by, np.repeat(rows, lengths)])
        return later, origin

    def _origin_of_all_classes(self, class_origin: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Copy ``of_class`` and add the joined classes of all classes that were divided off later."""
        of_class = self.of_class.astype(np.uint32)
        earlier_count = len(of_class)
        earlier = class_origin[earlier_count:]
        while (late := earlier >= earlier_count).any():
            earlier = np.where(late, class_origin[earlier], earlier)
        return np.concatenate([of_class, of_class[earlier]])

    def _with_parts(
        self, origin: Indices, take: Callable[[int], None]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return ``_matched`` and ``_by`` with new joined classes added. A selector that matches a joined class also
        matches the parts of this class. ``origin``: for each new joined class, the one that it is a part of.
        """
        parts = np.bincount(origin, minlength=self.count)
        copies = parts[self._matched]
        total = int(copies.sum())
        if not total:
            return self._matched, self._by
        take(_BYTES_PER_MATCH * total)
        # ``part`` lists the new classes, sorted by the joined class that contains them. Each pair is repeated for the
        # parts of its joined class. ``begins``: the first place of these parts in ``part``. ``run``: counts from there.
        part = (np.argsort(origin, kind="stable") + self.count).astype(np.int32)
        begins = (np.cumsum(parts) - parts)[self._matched]
        run = np.arange(total) - np.repeat(np.cumsum(copies) - copies, copies)
        return (
            np.concatenate([self._matched, part[np.repeat(begins, copies) + run]]),
            np.concatenate([self._by, np.repeat(self._by, copies)]),
        )

    def matching(self, row: int) -> NDArray[np.int32]:
        """Return the joined classes that the selector in a row matches."""
        matched_classes: NDArray[np.int32] = self._matched[self._by == row]
        return matched_classes

    def matching_each(self) -> list[NDArray[np.int32]]:
        """Return the joined classes that each selector matches, by row."""
        in_order = self._matched[np.argsort(self._by, kind="stable")]
        ends = np.cumsum(self.matches()).tolist()
        return [in_order[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def matches(self) -> Indices:
        """Count the joined classes that each selector matches, by row."""
        return np.bincount(self._by, minlength=len(self.row))

    def touching(self, joined: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return a mask of the selectors, by row, that match any of these joined classes."""
        among = np.zeros(self.count, dtype=bool)
        among[joined] = True
        touches = np.zeros(len(self.row), dtype=bool)
        touches[self._by[among[self._matched]]] = True
        return touches
