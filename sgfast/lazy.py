"""Let a package offer the names of its modules without importing these."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def on_demand(
    package: str, homes: Mapping[str, Sequence[str]], first: str | None = None
) -> Callable[[str], object]:
    """Return a package's ``__getattr__``, which imports a name's module when somebody asks for the name.

    ``homes``: the names by the module that has them. ``first``: a module to import before any of them. ``__all__``
    is what ``dir`` lists, unless the package has its own.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> object:
        from importlib import import_module

        # pydoc prints all of `__all__` in full: for sgfast thousands of lines. A package without it is its docstring.
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
