ENDS: tuple[str | None, ...]
ANSWERS: tuple[str, ...]
ROOM_FOR_A_ROW: int
