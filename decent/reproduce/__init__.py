"""Claims of the papers, measured again: `decent reproduce NAME`.

An experiment is a folder of `experiments/`, and imports decent; decent loads it by its path alone.

    README.md       what the paper says, what was measured, the plots
    run.toml        title, claim, and the settings of a [full] and a [fast] run
    expect.toml     what has to come out
    experiment.py   measure(settings, progress) → figures, and plot(figures, folder)
    results/        figures.json and plots of the full run that the README shows

`reproduce` carries one out. `style` draws all plots alike, and `convex` has what experiments on
convex functions share; both are imported by experiments, and need more than this module does.
"""

from decent.reproduce.expectations import Verdict
from decent.reproduce.experiment import Experiment, experiments, find
from decent.reproduce.run import Outcome, Progress, reproduce

__all__ = [
    "Experiment",
    "Outcome",
    "Progress",
    "Verdict",
    "experiments",
    "find",
    "reproduce",
]
