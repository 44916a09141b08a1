"""Characters that deltas cut in two.

JSON writes a character beyond the Basic Multilingual Plane as a surrogate pair, and there are backends that
cut their deltas between its halves. The first half is held back until the second one comes.
"""

from agent_gateway.domain.text import clean_text


def whole(text: str) -> tuple[str, str]:
    """The text up to the half at its end, clean, and that half; the half is empty when there is none."""
    return (clean_text(text[:-1]), text[-1]) if ends_in_half(text) else (clean_text(text), "")


def ends_in_half(text: str) -> bool:
    """Whether the text ends with the first half of a pair."""
    return "\ud800" <= text[-1:] <= "\udbff"


def packed(half: str) -> bytes:
    """A half as bytes, which UTF-8 has none for."""
    return half.encode("utf-16-be", "surrogatepass")


def unpacked(half: bytes) -> str:
    """The half that was packed."""
    return half.decode("utf-16-be", "surrogatepass")
