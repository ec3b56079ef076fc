"""Export to Open Telekom Cloud and Huawei Cloud (SPEC 13).

The script calls OpenStack's API, which these clouds have, too. The calls in JSON go to their own API, version 3.
"""

from __future__ import annotations

from typing import Literal

from sgfast.clouds.exporting.calls import Calls
from sgfast.clouds.exporting.expressible import Target
from sgfast.clouds.openstack.export import FUNCTIONS, project_calls
from sgfast.policy.model import TCP, UDP, Policy

__all__ = ["FUNCTIONS", "OTC_V3", "export"]

#: OpenStack's API has neither deny rules nor lists of ports.
_OPENSTACK_API = Target("Open Telekom Cloud", "otc", port_protocols=frozenset({TCP, UDP}))
#: The cloud's own API has both.
OTC_V3 = Target(
    "Open Telekom Cloud", "otc", has_denies=True, has_port_lists=True,
    port_protocols=frozenset({TCP, UDP}),
)  # fmt: skip


def export(old: Policy | None, new: Policy, form: Literal["script", "json"]) -> Calls:
    """Return the calls that change ``old`` into ``new``. Raises ExportError if the cloud cannot express it exactly."""
    if form == "json":
        return project_calls(old, new, OTC_V3, "/v3/${project}/vpc")
    return project_calls(old, new, _OPENSTACK_API)
