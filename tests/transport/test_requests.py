"""The connections of a caller: what other threads may do to them."""

from __future__ import annotations

import time

from decent.transport.requests import Requests


def test_others_may_wake_it_until_after_it_is_closed() -> None:
    """The thread that owns it may close it between another's look and its wake."""
    requests = Requests()
    for _ in range(10_000):  # more than the bell holds
        requests.wake()
    begun_s = time.monotonic()
    assert list(requests.events(30.0)) == []
    assert time.monotonic() - begun_s < 30.0
    requests.close()
    requests.wake()
