"""Learning rules: values that stand where an engine stands, and `Online` for streams."""

from jaxrnn.learning._stream import Stream
from jaxrnn.learning.online import Online
from jaxrnn.learning.rtrl import RFLO, RTRL, EProp, SnAp
from jaxrnn.learning.tbptt import TBPTT
from jaxrnn.learning.uoro import UORO

__all__ = ["RFLO", "RTRL", "TBPTT", "UORO", "EProp", "Online", "SnAp", "Stream"]
