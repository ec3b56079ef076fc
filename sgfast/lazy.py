"""Let a package offer the names of its modules without importing the modules."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def on_demand(
    package: str, homes: Mapping[str, Sequence[str]], first: str | None = None
) -> Callable[[str], object]:
    """Return a ``__getattr__`` for a package, which imports the module of a name when the name is first used.

    ``homes``: by module: its names. ``first``: a module to import before any other module. ``__all__`` is the list of
    ``dir``, unless the package defines ``__all__``.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> object:
        from importlib import import_module

        # pydoc prints all names of `__all__` in full: thousands of lines for sgfast. So pydoc gets no `__all__` here.
        if name == "__all__" and sys._getframe(1).f_code.co_name != "docmodule":
            return dir(import_module(package))
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if first is not None:
            import_module(first)
        value: object = getattr(import_module(home_of[name]), name)
        setattr(import_module(package), name, value)
        return value

    return find
