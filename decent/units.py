"""Quantities with units, as people write them.

Stands below every other package, as `errors` does.
"""

from __future__ import annotations

import math
import re

from decent.errors import ConfigError

PREFIXES = {
    "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30
}  # fmt: skip
RATE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(|[kMGT]|[KMG]i)(bit|B)(?:/s|ps)?")


def rate(field: str, text: str) -> float:
    """Bytes per second of "20Mbit", "2.5MB", "512KiB/s", …; `field` is whose value it is."""
    found = RATE.fullmatch(text.strip())
    value = float(found[1]) * PREFIXES[found[2]] / (8 if found[3] == "bit" else 1) if found else 0.0
    if not 0 < value < math.inf:
        raise ConfigError(
            f"{field} = {text!r}",
            'a rate above 0 with its unit, bits or bytes a second, such as "20Mbit" or "2.5MB"',
            "write bit or B after k, M, G, Ki, Mi or Gi",
        )
    return value
