"""Recognise files that are not captures, and suggest a remedy for each."""

import re

_CONVERT = "convert it first (editcap -F pcap FILE OUT.pcap)"


def _decompress(command: str) -> str:
    return f"decompress it first ({command} FILE | sgfast replay POLICY -)"


# (offset of the magic bytes, magic bytes, description of the file, remedy)
_MAGICS: list[tuple[int, bytes, str, str]] = [
    (0, b"\x1f\x9d", "compressed in an unsupported format (compress)", _decompress("zcat")),
    (0, b"\x1f\xa0", "compressed in an unsupported format (LZH)", _decompress("zcat")),
    (0, b"\x02\x21\x4c\x18", "lz4-compressed in its legacy format", _decompress("lz4cat")),
    (0, b"\x89LZO\0\r\n", "lzop-compressed", _decompress("lzop -dc")),
    (0, b"LZIP", "lzip-compressed", _decompress("lzip -dc")),
    (0, b"PK\x03\x04", "a ZIP archive", _decompress("unzip -p")),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"),
    (257, b"ustar", "a tar archive", "unpack it first"),
    (0, b"btsnoop\x00", "a btsnoop capture", "it holds Bluetooth, not IP"),
    (0, b"GMBU", "a Network Monitor capture", _CONVERT),
    (0, b"RTSS", "a Network Monitor capture", _CONVERT),
    (0, b"TRSNIFF data", "a Sniffer capture", _CONVERT),
    (0, b"XCP\x00", "a NetXRay capture", _CONVERT),
    (0, b"iptrace ", "an AIX iptrace capture", _CONVERT),
    (0, b"\x7fELF", "a program", "name a capture"),
    (0, b"%PDF", "a PDF document", "name a capture"),
    # libpcap reserves these magic numbers, in either byte order, for unpublished formats that neither libpcap nor
    # editcap can read. Navtel's format is known to count nanoseconds, but its record layout is not known.
    *(
        (0, magic[::step], f"a capture in {variant} variant of pcap", "export it as plain pcap or pcapng")
        for magic, variant in (
            (b"\xa1\x2b\x3c\x4d", "Navtel's unpublished"),
            (b"\xa1\xb2\x34\xcd", "Francisco Mesquita's unpublished"),
        )
        for step in (1, -1)
    ),
]

#: The beginning of a policy document.
_POLICY = re.compile(rb"^(?:version:|security_groups:|vpcs:|instances:)", re.MULTILINE)
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r\f"


def looks_like(head: bytes) -> str:
    """Return the file type that the first bytes of an unreadable capture suggest, and a remedy."""
    for offset, magic, description, remedy in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return f"is {description}: {remedy}"
    if len(head) < 4:
        return f"is too short for a capture ({len(head)} bytes)"
    if not any(head):
        return "holds zeros, not a capture; give a pcap or pcapng file"
    if not head[:512].translate(None, _TEXT) or _is_utf8(head[:512]):
        if _POLICY.search(head[:512]):
            return "is a policy, not a capture; policies stand before captures"
        return "is text, and neither a capture nor a known flow log; give pcap, pcapng, or a log with its header line"
    return f"is not a capture (it starts with {head[:4].hex()}); give a pcap or pcapng file"


def _is_utf8(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be incomplete.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(c.isprintable() or c in "\t\n\r\f" for c in text.removeprefix("\ufeff"))
