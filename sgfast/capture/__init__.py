"""Reads captures as batches of frames. This package knows nothing about rules or flows."""

from sgfast.capture.damage import Damage
from sgfast.capture.reader import CaptureReader, open_capture

__all__ = ["CaptureReader", "Damage", "open_capture"]
