# Whether this Python writes IPv4-mapped addresses as ::ffff:1.2.3.4, like newer versions, or as ::ffff:102:304.
cdef bint mapped_is_dotted
