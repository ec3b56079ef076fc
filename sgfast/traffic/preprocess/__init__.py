"""Steps that process packets before they are judged. Each step has ``apply``, which changes a batch of frames in place.
Steps depend on frames and headers, but neither on the policy nor on the engine.
"""

from typing import Literal

#: The name of a tunnel protocol whose headers can be removed. The names have the order of ``Kind`` in ``tunnels.pxd``.
TunnelKind = Literal["vxlan", "geneve", "gre", "ipip", "6in4", "erspan", "gtp-u", "mpls", "pppoe"]
