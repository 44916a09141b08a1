"""Where things are, for tests in whichever folder."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
RECORDED: Final = ROOT / "tests" / "recorded"
"""Recorded responses of real backends, and the requests for them."""
