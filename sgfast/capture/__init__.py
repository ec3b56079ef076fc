"""Captures as batches of frames. Knows neither rules nor flows."""

from sgfast.capture.damage import Damage
from sgfast.capture.reader import CaptureReader, open_capture

__all__ = ["CaptureReader", "Damage", "open_capture"]
