# Maps a protocol and a port (or ICMP type and code) to a port class.
#
# The compiler divides the ports of all rules into classes: two ports are in one class if no rule tells them apart. A
# protocol for which no rule names ports has a single class.

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef struct PortMap:
    uint32_t whole[256]         # by protocol: its class if no rule names ports of it
    const uint32_t* by_port[256]    # by protocol: 65,536 classes, or NULL


cdef inline uint32_t find_port_class(const PortMap* ports, uint8_t protocol, uint16_t port_key) noexcept nogil:
    cdef const uint32_t* by_port = ports.by_port[protocol]
    if by_port != NULL:
        return by_port[port_key]
    return ports.whole[protocol]
