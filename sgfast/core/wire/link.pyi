LINK_TYPES: tuple[int, ...]
LINK_TYPES_WITHOUT_IP: tuple[int, ...]
LINK_TYPE_NAMES: dict[int, str]
LEAST_HEADERS: dict[int, int]
