"""The types that results of ``sgfast`` consist of, and those of arguments, for annotations and ``isinstance``.

    from sgfast.types import Broken, ReasonWord

    def worst(result: sgfast.ReplayResult) -> Broken | None: ...

Results themselves, such as ``ReplayResult``, are names of ``sgfast``. Each name is imported when it is first used.
"""

from sgfast.lazy import on_demand

__getattr__, __dir__ = on_demand(__name__)
