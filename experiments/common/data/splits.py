"""A number that depends on a text alone: what is drawn by it stays where it is on every machine."""

import hashlib


def digest(text: str) -> int:
    """The first eight bytes of the text's SHA-256.

    Example:
        >>> digest("hello") % 100
        42
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
