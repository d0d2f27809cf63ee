"""Property tests draw the same examples each time, so that a pass is a pass; `EXAMPLES=2500 pytest`
searches further, at random."""

from __future__ import annotations

import os

from hypothesis import settings

more = os.environ.get("EXAMPLES")
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("more", deadline=None, max_examples=int(more or 100))
settings.load_profile("more" if more else "same")
