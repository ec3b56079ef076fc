LINK_TYPES: tuple[int, ...]
