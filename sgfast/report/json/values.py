"""Types of values that several answers have."""

from __future__ import annotations

from typing import Annotated

from sgfast.base.json_types import Keywords
from sgfast.base.names import printable
from sgfast.policy.protocols import protocol_name
from sgfast.report.amounts import time_text
from sgfast.report.names import as_text

Count = Annotated[int, Keywords(minimum=0)]
Number = Annotated[int, Keywords(minimum=1)]
Byte = Annotated[int, Keywords(minimum=0, maximum=255)]
Port = Annotated[int, Keywords(minimum=0, maximum=65535)]
PortRange = Annotated[list[Port], Keywords(minItems=2, maxItems=2)]
JsonSeconds = Annotated[float, Keywords(minimum=0)]
#: A time in nanoseconds.
Time = Annotated[
    str, Keywords(pattern=r"^-?[0-9]+\.[0-9]{9}$"), "Seconds since the Unix epoch, with nine decimals.", time_text
]
Text = Annotated[str, Keywords(minLength=1)]
#: A text. An empty text becomes null.
TextOrNull = Annotated[str | None, lambda text: text or None]
#: The name of a file. Bytes that are not valid text are escaped.
File = Annotated[str, as_text]
#: A text. Characters that cannot be printed are escaped.
Printable = Annotated[str, printable]
#: A protocol's number.
JsonProtocol = Annotated[
    Text | Byte, "IANA's keyword in lower case, else the number.", lambda number: protocol_name(number) or number
]
ProviderId = Annotated[TextOrNull, "The provider's id, if the policy has it beside the name."]
