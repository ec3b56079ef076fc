"""The names of clouds, and the facts that policies need, by the name of a profile (SPEC 6.7).

Each cloud's folder in ``sgfast/clouds`` has a module ``profile``, which holds data and imports nothing: policies are
below clouds and know their folders by name alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, NotRequired, TypedDict, cast

#: The cloud whose behaviour a policy assumes (SPEC 6.8).
ProfileName = Literal["otc", "neutron", "aws"]
#: The name of an export's format, a key of ``sgfast.clouds.providers.FORMATS``. ``auto`` detects the format.
ExportFormat = Literal["auto", "otc", "neutron", "aws", "terraform", "cloudformation"]

#: The folders of clouds whose profile has another name.
_FOLDERS = {"neutron": "openstack"}


class ProfileData(TypedDict):
    """A cloud's defaults, where they differ from those of SPEC 2."""

    settings: NotRequired[dict[str, Any]]
    timeouts: NotRequired[dict[str, float]]
    quotas: NotRequired[dict[str, int]]
    #: Other timeouts that the cloud documents for some of its types of instances.
    timeouts_of_some: NotRequired[dict[str, float]]
    #: The first port that a rule can name; 1 if it is left out.
    first_port: NotRequired[int]
    #: The cloud's term for an address group, if it is another one.
    address_group_word: NotRequired[str]
    #: Whether a rule whose peer is a group is for IPv4 and IPv6 (SPEC 2.16).
    unites_versions: NotRequired[bool]


def profile_data(profile: str) -> ProfileData:
    """Return the data of a profile."""
    return cast(ProfileData, import_module(f"sgfast.clouds.{_FOLDERS.get(profile, profile)}.profile").PROFILE)
