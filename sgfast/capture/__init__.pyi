from sgfast.capture.reader import CaptureReader as CaptureReader
from sgfast.capture.reader import open_capture as open_capture
from sgfast.capture.streams import Damage as Damage
