"""Format names for messages."""

from sgfast.core.wire.link import LINK_TYPE_NAMES
from sgfast.credentials import without_credentials


def printable(name: str) -> str:
    """Return the name on one line and without credentials; control characters and undecodable bytes are escaped."""
    if not name:
        return "''"
    name = without_credentials(name)
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def link_type_name(link_type: int) -> str:
    """``LINKTYPE_RAW (101)``, or just the number if the link type has no name here."""
    name = LINK_TYPE_NAMES.get(link_type)
    return f"LINKTYPE_{name} ({link_type})" if name else str(link_type)
