"""Carry out an experiment: measure, plot, write down, judge.

Nothing is written before all has been computed, and then each file whole: an interrupted run leaves
what was there. The page of an experiment changes with a full run into its own folder alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from decent import __version__
from decent.folder import write_atomic, write_json
from decent.reproduce import expectations, style, tables
from decent.reproduce.expectations import Verdict
from decent.reproduce.experiment import Experiment, Settings

Figures = dict[str, Any]
Progress = Callable[[str, float], None]
"""Told what is being done, and which share of the whole, 0 to 1, has been."""


@dataclass(frozen=True)
class Outcome:
    """What came out, and where it was written."""

    experiment: Experiment
    fast: bool
    folder: Path
    figures: Figures
    verdicts: list[Verdict]
    wall_s: float

    @property
    def ok(self) -> bool:
        return all(each.ok for each in self.verdicts)


def reproduce(
    experiment: Experiment,
    *,
    fast: bool = False,
    out: Path | None = None,
    progress: Progress = lambda doing, share: None,
) -> Outcome:
    """Measure with the settings of a full or a `fast` run, and write figures.json and plots to
    `out`: if not given the experiment's own results, or a folder of runs/ for a fast run."""
    style.require()
    settings, checks = experiment.settings(fast), experiment.checks()
    measure, plot = experiment.function("measure"), experiment.function("plot")
    own = out is None and not fast and not experiment.installed
    page = experiment.readme.read_text() if own else ""
    if own:
        tables.put(page, [], experiment.readme)  # refused now rather than when all is measured
    folder = experiment.results if own else out or _elsewhere(experiment, fast)
    started_s = time.monotonic()
    with _one_thread():
        figures = _plain(measure(settings, progress))
    wall_s = time.monotonic() - started_s
    drawn = _drawn(plot, figures)
    _write(folder, figures, drawn, _about(experiment, fast, settings, wall_s))
    if own:
        page = tables.put(page, figures.get("table", []), experiment.readme)
        write_atomic(experiment.readme, page.encode())
    verdicts = expectations.judge(checks, figures, fast)
    return Outcome(experiment, fast, folder, figures, verdicts, wall_s)


def _elsewhere(experiment: Experiment, fast: bool) -> Path:
    return Path("runs") / f"reproduce-{experiment.name}{'-fast' if fast else ''}"


def _about(experiment: Experiment, fast: bool, settings: Settings, wall_s: float) -> Figures:
    return {
        "experiment": experiment.name, "decent": __version__, "fast": fast,
        "settings": settings, "wall_s": round(wall_s, 1),
    }  # fmt: skip


def _plain(figures: Figures) -> Figures:
    """As JSON gives them back, so that what is judged and shown is what is kept; NaN is none."""
    text = json.dumps(figures, default=lambda number: number.item())
    found: Figures = json.loads(text, parse_constant=lambda name: None)
    return found


def _drawn(plot: Callable[[Figures, Path], None], figures: Figures) -> dict[str, bytes]:
    """The files that `plot` makes."""
    with TemporaryDirectory() as scratch, style.applied():
        plot(figures, Path(scratch))
        return {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}


def _write(folder: Path, figures: Figures, drawn: dict[str, bytes], about: Figures) -> None:
    for name, data in drawn.items():
        write_atomic(folder / name, data)
    write_json(folder / "figures.json", {**about, "figures": figures})


@contextmanager
def _one_thread() -> Iterator[None]:
    """Figures to the last digit should not depend on how many cores there are."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
