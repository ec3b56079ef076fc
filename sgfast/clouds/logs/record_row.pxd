# A row of RECORD_DTYPE as a struct; columns.py explains the columns.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t


cdef struct Row:
    int64_t line
    int64_t start_ns
    int64_t end_ns
    int64_t packets
    int64_t bytes
    int64_t packets_back
    int64_t bytes_back
    uint8_t src[16]
    uint8_t dst[16]
    uint8_t pkt_src[16]
    uint8_t pkt_dst[16]
    int32_t interface
    int32_t instance
    int32_t rule
    uint32_t history
    uint16_t sport
    uint16_t dport
    int16_t protocol
    int16_t tcp_flags
    int16_t icmp_type
    int16_t icmp_code
    uint8_t family
    uint8_t has_pkt
    uint8_t has_ports
    uint8_t direction
    uint8_t action
    uint8_t opener
    int8_t conn_state
    uint8_t spare[5]
