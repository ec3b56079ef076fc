from sgfast.base.streams.binary_stream import Damage as Damage
from sgfast.capture.reader import CaptureReader as CaptureReader
from sgfast.capture.reader import open_capture as open_capture
