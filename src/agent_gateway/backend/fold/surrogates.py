"""Characters that deltas cut in two.

JSON writes a character beyond the Basic Multilingual Plane as a surrogate pair, and some backends cut their
deltas between its halves. The first half is held back until the second one arrives.
"""

from agent_gateway.domain.text import clean_text


def split_half(text: str) -> tuple[str, str]:
    """The clean text without the half at its end, and that half. The half may be empty."""
    return (clean_text(text[:-1]), text[-1]) if ends_in_half(text) else (clean_text(text), "")


def ends_in_half(text: str) -> bool:
    """Whether the text ends with the first half of a pair."""
    return "\ud800" <= text[-1:] <= "\udbff"


def half_to_bytes(half: str) -> bytes:
    """A half as bytes: UTF-8 cannot encode one."""
    return half.encode("utf-16-be", "surrogatepass")


def half_from_bytes(half: bytes) -> str:
    """The half that `half_to_bytes` encoded."""
    return half.decode("utf-16-be", "surrogatepass")
