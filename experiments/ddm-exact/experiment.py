"""The identities of decentralized flow matching, on data whose flows are known, in float64.

    u_t(x) = Σ_k p(k | x, t) u_t^k(x)

Data are a mixture of 12 Gaussians in the plane, component j in cluster j mod 4 and class j mod 3,
so that neither clusters nor classes lie together; and images as they are, each a point mass.
An error is the largest absolute difference of two fields, over the states; of a control the mean
length of the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decent.errors import InputError
from decent.experts import sources
from decent.experts.ensemble import Ensemble
from decent.experts.exact import Empirical, Exact, GaussianMixture
from decent.experts.guidance import Guided
from decent.experts.path import COSINE, LINEAR, noised
from decent.experts.path import Path as Way
from decent.experts.prediction import AsVelocity, Model, Prediction
from decent.experts.sampling import sample
from decent.reproduce import Progress, style

Figures = dict[str, Any]
Check = tuple[str, str, float, bool]
"""key, in words, error, and whether it is a control"""
CLUSTERS, CLASSES, COMPONENTS = 4, 3, 12
COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE)
SHOWN = (0, 1)  # experts whose fields are drawn
SPAN, CELLS, ARROWS = 5.0, 160, 19


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    progress("a mixture in the plane", 0.0)
    checks = [*_marginal(settings), *_weights(settings), *_partial(settings)]
    progress("conditions and guidance", 0.2)
    checks += [*_conditional(settings), *_sampled(settings)]
    progress("images", 0.4)
    checks += _images(settings)
    return {
        "checks": {key: error for key, _, error, _ in checks},
        "table": [
            {"check": says, "control": control, "difference": f"{error:.1e}"}
            for _, says, error, control in checks
        ],
        "order": [[key, says, control] for key, says, _, control in checks],
        "fields": _fields(settings["field"]),
    }


def mixture(path: Way = LINEAR) -> GaussianMixture:
    draw = torch.Generator().manual_seed(1)
    spread = 0.3 * torch.randn(COMPONENTS, 2, 2, generator=draw, dtype=torch.float64)
    covariances = spread @ spread.mT + 0.02 * torch.eye(2, dtype=torch.float64)
    means = 3 * torch.randn(COMPONENTS, 2, generator=draw, dtype=torch.float64)
    weights = torch.rand(COMPONENTS, generator=draw, dtype=torch.float64) + 0.1
    j = torch.arange(COMPONENTS)
    return GaussianMixture(weights, means, covariances, j % CLUSTERS, j % CLASSES, path)


def states(count: int) -> tuple[Tensor, Tensor]:
    """x [N, 2] and t [N] from 0.01 to 0.99."""
    draw = torch.Generator().manual_seed(2)
    x = 2 * torch.randn(count, 2, generator=draw, dtype=torch.float64)
    return x, 0.01 + 0.98 * torch.rand(count, generator=draw, dtype=torch.float64)


def ensemble(data: Exact, strategy: str = "full") -> Ensemble:
    return Ensemble(data.experts, data.router, data.pi, strategy)


def most(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def mean(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm(dim=1).mean())


def _marginal(settings: dict[str, Any]) -> Iterator[Check]:
    x, t = states(settings["points"])
    for path in (LINEAR, COSINE):
        data, says = mixture(path), f"mixture, {path.name} path"
        mixed = ensemble(data)(x, t)
        yield path.name, f"{says}: ensemble, global flow", most(mixed, data.velocity(x, t)), False
        yield f"{path.name}_score", f"{says}: ensemble, flow by the score", most(
            mixed, data.by_score(x, t)
        ), False  # fmt: skip


def _weights(settings: dict[str, Any]) -> Iterator[Check]:
    """Weights that are not the posterior, and one that is made so."""
    data, (x, t) = mixture(), states(settings["points"])
    u, log_pi = data.velocity(x, t), torch.tensor(data.pi, dtype=torch.float64).log()

    def under(router: Model) -> Tensor:
        return Ensemble(data.experts, router, strategy="full")(x, t)

    uniform = under(lambda x, t, c: x.new_zeros(len(x), CLUSTERS))
    yield "uniform", "uniform weights", mean(uniform, u), True
    yield "top_1", "the likeliest expert alone", mean(ensemble(data, "top_k:1")(x, t), u), True
    balanced = under(lambda x, t, c: data.router(x, t, c) - log_pi)
    yield "balanced", "router of balanced batches", mean(balanced, u), True
    corrected = under(lambda x, t, c: (data.router(x, t, c) - log_pi) + log_pi)
    yield "corrected", "the same with log π added", most(corrected, u), False


def _partial(settings: dict[str, Any]) -> Iterator[Check]:
    data, (x, t) = mixture(), states(settings["points"])
    rest = ensemble(data)
    rest.lost[2], rest.floor = "left out", 0.0
    alone = data.only([0, 1, 3]).velocity(x, t)
    yield "dropped", "an expert dropped, flow of the rest", most(rest(x, t), alone), False
    u = data.velocity(x, t)
    yield "dropped_all", "an expert dropped, flow of all", mean(rest(x, t), u), True
    t = 0.02 + 0.96 * t  # beyond, the denominator of a prediction is kept above its floor
    mixed = Ensemble(_kinds(data), data.router, strategy="full")(x, t)
    says = "velocity, noise, data and v over two paths"
    yield "kinds", says, most(mixed, data.velocity(x, t)), False


def _kinds(data: GaussianMixture) -> list[Model]:
    """Each expert of another parameterisation, every other one of the cosine path."""
    cosine, kinds = mixture(COSINE), ("velocity", "noise", "data", "v")
    return [
        AsVelocity((cosine if k % 2 else data).expert(k, kind), Prediction(kind, path))
        for k, (kind, path) in enumerate(zip(kinds, ("linear", "cosine") * 2, strict=True))
    ]


def _conditional(settings: dict[str, Any]) -> Iterator[Check]:
    data, (x, t) = mixture(), states(settings["points"])
    c, scale = torch.arange(len(x)) % CLASSES, settings["guidance"]
    own, free = data.velocity(x, t, c), data.velocity(x, t)
    guided = free + scale * (own - free)

    def blind(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return data.router(x, t)

    each = [Guided(expert, scale) for expert in data.experts]
    unaware = Ensemble(data.experts, blind, strategy="full")
    apart = Ensemble(each, blind, strategy="full")
    yield "class", "router told the class", most(ensemble(data)(x, t, c), own), False
    yield "blind", "router not told", mean(unaware(x, t, c), own), True
    combined = Guided(ensemble(data), scale)(x, t, c)
    yield "guided", "combined, then guided", most(combined, guided), False
    says = "each expert guided, router not told"
    yield "guided_each", says, mean(apart(x, t, c), guided), True


def _sampled(settings: dict[str, Any]) -> Iterator[Check]:
    draw = torch.Generator().manual_seed(3)
    data = mixture()
    noise = torch.randn(settings["trajectories"], 2, generator=draw, dtype=torch.float64)
    dense, mixed = (
        sample(model, noise, settings["steps"]).x for model in (data.velocity, ensemble(data))
    )
    yield "sampled", f"{settings['steps']} steps of Euler from the same noise", most(
        dense, mixed
    ), False  # fmt: skip


def _images(settings: dict[str, Any]) -> list[Check]:
    """Data sets as they are, relative to the largest velocity."""
    checks = list(_empirical("digits", settings))
    try:
        return checks + list(_empirical("fashion-mnist", settings))
    except InputError:  # it is not installed
        return checks


def _empirical(name: str, settings: dict[str, Any]) -> Iterator[Check]:
    source, draw = sources.load(name), torch.Generator().manual_seed(4)
    x0 = source.rows(torch.arange(min(settings["images"], len(source)))).flatten(1).double()
    data = Empirical(x0, torch.arange(len(x0)) % settings["shards"])
    rows = torch.randint(len(x0), (settings["states"],), generator=draw)
    t = 0.05 + 0.94 * torch.rand(len(rows), generator=draw, dtype=torch.float64)
    x = noised(LINEAR, x0[rows], torch.randn(x0[rows].shape, generator=draw).double(), t)
    u, whole = data.velocity(x, t), ensemble(data)
    scale, key = float(u.abs().max()), name.replace("-", "_")
    says = f"{len(x0):,} images of {name}"
    yield key, f"{says}: ensemble, global flow", most(whole(x, t), u) / scale, False
    whole.lost[0], whole.floor = "left out", 0.0
    rest = data.only(range(1, settings["shards"])).velocity(x, t)
    says = f"{says}: a shard dropped, flow of the rest"
    yield f"{key}_dropped", says, most(whole(x, t), rest) / scale, False


def _fields(time: float) -> Figures:
    """Where each cluster is likeliest, and the flows of two experts and of all, at one time."""
    data, line = mixture(), torch.linspace(-SPAN, SPAN, CELLS, dtype=torch.float64)
    cells = torch.cartesian_prod(line, line)
    likely = data.router(cells, torch.full((len(cells),), time)).softmax(-1)
    sparse = torch.linspace(-SPAN, SPAN, ARROWS, dtype=torch.float64)
    places = torch.cartesian_prod(sparse, sparse)
    t = torch.full((len(places),), time, dtype=torch.float64)
    models: list[Callable[..., Tensor]] = [*(data.experts[k] for k in SHOWN), ensemble(data)]
    return {
        "time": time,
        "region": likely.argmax(-1).reshape(CELLS, CELLS).T.tolist(),
        "sure": [[round(p, 3) for p in row] for row in
                 likely.amax(-1).reshape(CELLS, CELLS).T.tolist()],
        "places": places.tolist(),
        "flows": [_rounded(-model(places, t)) for model in models],
        "means": (data.means * (1 - time)).tolist(),
    }  # fmt: skip


def _rounded(x: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in x.tolist()]


def plot(figures: Figures, folder: Path) -> None:
    _draw_fields(figures["fields"], folder / "fields.svg")
    _draw_errors(figures, folder / "errors.svg")


def _draw_fields(fields: Figures, path: Path) -> None:
    figure, panels = style.panels(3, width=3.6, height=3.6)
    titles = [*(f"expert {k}" for k in SHOWN), "ensemble, and the router's regions"]
    for axes, flow, title in zip(panels, fields["flows"], titles, strict=True):
        _draw_flow(axes, fields, flow)
        axes.set_title(title, loc="left")
        axes.grid(visible=False)
    _draw_regions(panels[2], fields)
    style.save(figure, path)


def _draw_flow(axes: Any, fields: Figures, flow: list[list[float]]) -> None:
    (x, y), (u, v) = zip(*fields["places"], strict=True), zip(*flow, strict=True)
    axes.quiver(x, y, u, v, color=style.BLACK, width=0.004, scale=130, zorder=3)
    for j, (a, b) in enumerate(fields["means"]):
        axes.plot(a, b, "o", color=COLOURS[j % CLUSTERS], markeredgecolor="white", zorder=4)
    axes.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN), aspect="equal")


def _draw_regions(axes: Any, fields: Figures) -> None:
    """The likeliest cluster's colour, the stronger the surer the router is."""
    from matplotlib.colors import to_rgb

    colours = torch.tensor([to_rgb(each) for each in COLOURS], dtype=torch.float64)
    region, sure = torch.tensor(fields["region"]), torch.tensor(fields["sure"]).double()
    depth = 0.6 * (sure - 1 / CLUSTERS).clamp(min=0)[..., None]
    page = 1 - depth * (1 - colours[region])
    edges = (-SPAN, SPAN, -SPAN, SPAN)
    axes.imshow(page.numpy(), origin="lower", extent=edges, interpolation="nearest", zorder=1)


def _draw_errors(figures: Figures, path: Path) -> None:
    figure, axes = style.panels(1, width=8.4, height=4.6)
    for y, (key, _, control) in enumerate(figures["order"]):
        value = max(figures["checks"][key], 1e-17)
        axes.plot(value, y, "s" if control else "o", color=COLOURS[bool(control)])
    axes.axvline(1e-9, color=style.GREY, linestyle="--", linewidth=1.3)
    axes.set_yticks(range(len(figures["order"])), [says for _, says, _ in figures["order"]])
    axes.invert_yaxis()
    style.finish(axes, x="difference (squares: controls)", y="", log="x", legend=False)
    style.save(figure, path)
