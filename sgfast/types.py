"""The types that results of ``sgfast`` consist of, and those of arguments, for annotations and ``isinstance``.

    from sgfast.types import Broken, ReasonWord

    def worst(result: sgfast.ReplayResult) -> Broken | None: ...

Each name is imported when it is first used. Results such as ``ReplayResult`` are also names of ``sgfast``.
"""

from sgfast.base.lazy import on_demand

__getattr__, __dir__ = on_demand(__name__)
