"""How many examples property tests try: 20 random ones in the fast loop, the same 100 each time in dev/test.

A commit is not refused for an example that no other run has seen. How long one takes says nothing on a busy
machine.
"""

import os

from hypothesis import settings

settings.register_profile("thorough", deadline=None, derandomize=True)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def examples(count: int) -> settings:
    """For tests that need another number of examples."""
    return settings(max_examples=count)
