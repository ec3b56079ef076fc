# Maps a protocol and a port (or ICMP type and code) to a port class.
#
# The compiler divides the ports of all rules into classes: two ports are in one class if no rule tells them apart. A
# protocol has a single class if no rule names its ports.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from sgfast.core.classify.narrow cimport number_at


cdef struct PortMap:
    uint32_t whole[256]         # by protocol: its class if no rule names its ports
    const void* by_port[256]    # by protocol: a narrow array of 65,536 classes, or NULL
    uint8_t wide[256]           # by protocol: whether its array is wide


cdef inline uint32_t find_port_class(const PortMap* ports, uint8_t protocol, uint16_t port_key) noexcept nogil:
    cdef const void* by_port = ports.by_port[protocol]
    if by_port != NULL:
        return number_at(by_port, ports.wide[protocol], port_key)
    return ports.whole[protocol]
