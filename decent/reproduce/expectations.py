"""What has to come out of an experiment: `expect.toml`, a list of checks.

    [[check]]
    figure = "ring.dadao.slope"     # where it is among the figures: keys, and numbers in lists
    at_most = -0.02                 # at_least, or both; or about, and within how much of that
    says = "DADAO is as fast as its theorem"
    fast = { at_most = -0.01 }      # other bounds for a fast run; false: not checked there

A figure that is missing, no number or NaN has missed its check. true counts as 1.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from decent.errors import ConfigError

FORM = "at_least, at_most or both, or about with within"


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a figure may be, ends included."""

    at_least: float | None = None
    at_most: float | None = None
    about: float | None = None
    within: float | None = None

    def hold(self, value: float) -> bool:
        low, high = self.range
        return low <= value <= high

    @property
    def range(self) -> tuple[float, float]:
        if self.about is not None and self.within is not None:
            return self.about - self.within, self.about + self.within
        low = -math.inf if self.at_least is None else self.at_least
        return low, math.inf if self.at_most is None else self.at_most

    @property
    def make_sense(self) -> bool:
        either = self.at_least is not None or self.at_most is not None
        both = self.about is not None and self.within is not None
        neither = self.about is None and self.within is None
        return (both and not either) or (either and neither)

    def __str__(self) -> str:
        if self.about is not None:
            return f"{self.about:.4g} ± {self.within:.2g}"
        low = [] if self.at_least is None else [f"≥ {self.at_least:.4g}"]
        high = [] if self.at_most is None else [f"≤ {self.at_most:.4g}"]
        return " and ".join(low + high)


class Check(Bounds, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds for a figure, and what it says if they hold."""

    figure: str
    says: str
    fast: Bounds | bool = True

    def bounds(self, fast: bool) -> Bounds | None:
        """Those of this kind of run; none if it does not check the figure."""
        if not fast or self.fast is True:
            return self
        return self.fast or None


class Verdict(msgspec.Struct, frozen=True):
    """A check, and the figure that came out."""

    figure: str
    says: str
    expected: str
    value: float | None
    ok: bool


class _File(msgspec.Struct, forbid_unknown_fields=True):
    check: list[Check]


def read(path: Path) -> list[Check]:
    """The checks of an `expect.toml`; raises ConfigError where it is not one."""
    try:
        checks = msgspec.convert(tomllib.loads(path.read_text()), _File).check
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as cause:
        raise ConfigError(
            f"{path}: {cause}", "tables [[check]]", "see experiments/README.md"
        ) from None
    for check in checks:
        for bounds in (check.bounds(False), check.bounds(True)):
            if bounds is not None and not bounds.make_sense:
                raise ConfigError(f"{path}: the bounds of {check.figure!r}", FORM)
    return checks


def judge(checks: list[Check], figures: Mapping[str, Any], fast: bool) -> list[Verdict]:
    """What became of the checks of this kind of run."""
    return [
        _verdict(check, bounds, _number(look_up(figures, check.figure)))
        for check in checks
        if (bounds := check.bounds(fast)) is not None
    ]


def _verdict(check: Check, bounds: Bounds, value: float | None) -> Verdict:
    ok = value is not None and bounds.hold(value)
    return Verdict(check.figure, check.says, str(bounds), value, ok)


def look_up(figures: Any, path: str) -> Any:
    """What stands at a dotted path: keys of tables, positions in lists; none if nothing does."""
    for key in path.split("."):
        if isinstance(figures, Mapping):
            figures = figures.get(key)
        elif isinstance(figures, list) and key.isdigit() and int(key) < len(figures):
            figures = figures[int(key)]
        else:
            return None
    return figures


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return float(value)
