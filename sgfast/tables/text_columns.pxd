# How this Python writes IPv4-mapped addresses: newer versions ::ffff:1.2.3.4, older ones ::ffff:102:304.
cdef bint mapped_is_dotted
