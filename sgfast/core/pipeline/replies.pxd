# Replies to openers that stateless filters let pass (SPEC 4.13). These filters have no connections, so nothing in the
# connection table tells that a packet is a reply. So `Plane.attempts` remembers such openers, too: without a record
# (UNBEGUN) until a stateless filter denies the first reply, which makes a denied attempt of them.
#
# This is a module of its own, so that the path of other packets stays short enough for the compiler to inline it.

from libc.stdint cimport int64_t, uint32_t

from sgfast.core.base.types cimport Packet
from sgfast.core.conntrack.storage cimport Entry
from sgfast.core.pipeline.judge cimport Outcome, PacketContext
from sgfast.core.pipeline.plane cimport Plane

# Returns the slot of the key's opener that stateless filters let pass, or NO_SLOT.
cdef uint32_t passed_opener(const Plane* plane, const Packet* p, int64_t now) noexcept nogil
cdef void find_passed(const Plane* plane, PacketContext* c) noexcept nogil
# Returns whether the key is moot because its first reply was denied.
cdef bint reply_makes_moot(const Plane* plane, const Entry* e) noexcept nogil
# Returns whether the packet is moot because the key's first reply was denied. It counts in the denied attempt then.
cdef bint follows_denied_reply(Plane* plane, PacketContext* c) noexcept nogil
# Forgets that the key's opener passed, because a later one was denied. A denied attempt stays.
cdef void drop_passed(Plane* plane, PacketContext* c) noexcept nogil
# A stateless filter denied a reply to the key's opener: that connection would break.
cdef void note_denied_reply(Plane* plane, PacketContext* c, int side, const Outcome* o) noexcept nogil
# Call this for an allowed packet. If it is an opener that a stateless filter judged, its reply is awaited from now on.
# If it is a reply, the connection works.
cdef void note_passed(Plane* plane, PacketContext* c) noexcept nogil
