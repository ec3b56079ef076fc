LINK_TYPES: tuple[int, ...]
LINK_TYPES_WITHOUT_IP: tuple[int, ...]
LINK_TYPE_NAMES: dict[int, str]
MIN_HEADER_LENGTHS: dict[int, int]

def link_type_name(link_type: int) -> str: ...
