from sgfast.base.streams.binary_stream import Damage as Damage
from sgfast.traffic.capture.reader import CaptureReader as CaptureReader
from sgfast.traffic.capture.reader import open_capture as open_capture
