"""Read captures as batches of frames. This package does not depend on rules or flows."""

from typing import TYPE_CHECKING

from sgfast.lazy import on_demand

if TYPE_CHECKING:
    from sgfast.capture.reader import CaptureReader as CaptureReader
    from sgfast.capture.reader import open_capture as open_capture
    from sgfast.capture.streams import Damage as Damage

# Imported on demand, so that commands that read no capture do not wait for the modules that read one.
__getattr__ = on_demand(
    __name__, {"sgfast.capture.streams": ("Damage",), "sgfast.capture.reader": ("CaptureReader", "open_capture")}
)
