"""The defaults that ``settings.profile`` selects (SPEC 2, 6.7). A value written in a document overrides them.

``max_connections`` is this program's own limit, not a cloud's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, get_args

from sgfast.policy.model import Quotas, Settings, Timeouts
from sgfast.policy.profile_data import ProfileName, profile_data


class Profile(NamedTuple):
    """The defaults of a cloud. ``profile_data`` explains the last three."""

    settings: Settings
    quotas: Quotas
    timeouts_of_some: Mapping[str, float]
    first_port: int
    unites_versions: bool


def _profile(name: ProfileName) -> Profile:
    data = profile_data(name)
    timeouts = Timeouts(**data.get("timeouts", {}))
    return Profile(
        Settings(profile=name, timeouts=timeouts, **data.get("settings", {})),
        Quotas(**data.get("quotas", {})),
        data.get("timeouts_of_some", {}),
        data.get("first_port", 1),
        data.get("unites_versions", False),
    )


PROFILES: dict[ProfileName, Profile] = {name: _profile(name) for name in get_args(ProfileName)}
