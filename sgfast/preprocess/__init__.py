"""Steps that process packets before they are judged. Each step has ``apply``, which changes a batch of frames in place.
Steps depend on frames and headers, but neither on the policy nor on the engine.
"""

from typing import Literal

#: A kind of tunnels whose headers can be removed. The order is that of ``Kind`` in ``tunnels.pxd``.
TunnelKind = Literal["vxlan", "geneve", "gre", "ipip", "6in4", "erspan", "gtp-u", "mpls", "pppoe"]
