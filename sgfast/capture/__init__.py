"""Read captures as batches of frames. This package knows nothing about rules or flows."""

from typing import TYPE_CHECKING

from sgfast.lazy import on_demand

if TYPE_CHECKING:
    from sgfast.capture.damage import Damage
    from sgfast.capture.reader import CaptureReader, open_capture

# Commands that read no capture should not wait for all that reads one.
__getattr__ = on_demand(
    __name__, {"sgfast.capture.damage": ("Damage",), "sgfast.capture.reader": ("CaptureReader", "open_capture")}
)

__all__ = ["CaptureReader", "Damage", "open_capture"]
