"""Let a package offer the names of its modules without importing the modules."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def on_demand(package: str, first: str | None = None) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package or module whose names are those of its stub, the ``.pyi``
    file beside it. Each line of the stub is ``from MODULE import NAME as NAME``. The module of a name is imported when
    the name is first used.

    ``first``: a module to import before any other module. ``__all__`` is the list of ``dir``.
    """
    homes: dict[str, str] = {}

    def home_of() -> dict[str, str]:
        if not homes:
            # The file may be a .pyc, if the sources were left out.
            file = str(sys.modules[package].__file__).rpartition(".")[0]
            with open(f"{file}.pyi", encoding="utf-8") as stub:
                homes.update({name: module for _, module, _, name, _, _ in map(str.split, stub)})
        return homes

    def find(name: str) -> object:
        from importlib import import_module

        # pydoc prints all names of `__all__` in full: thousands of lines for sgfast. So pydoc gets no `__all__` here.
        if name == "__all__" and sys._getframe(1).f_code.co_name != "docmodule":
            return names()
        # While Python imports a package, it looks up names like `__path__`, which no stub has.
        if name.startswith("__") or name not in home_of():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if first is not None:
            import_module(first)
        home = home_of()[name]
        # The package comes first: it would deadlock with another thread that imports it, if it imports this module.
        import_module(home.rpartition(".")[0])
        value: object = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted(home_of())

    return find, names
