"""Property tests of this folder try a few examples in the fast loop, and as many as usual in dev/test."""

import os

from hypothesis import settings

# How long an example takes says nothing on a busy machine.
settings.register_profile("thorough", deadline=None)
settings.register_profile("quick", settings.get_profile("thorough"), max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
