"""The ensemble: who is asked, who is lost, what is refused."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
import torch
from torch import Tensor, nn

from decent.errors import ConfigError, ExpertLost, ModelError, RuntimeFault
from decent.experts.draw import Draw
from decent.experts.ensemble import Ensemble, ensemble_in
from decent.experts.guidance import Guided
from decent.experts.sampling import sample
from decent.experts.shelf import Shelf

COUNT = 3


class Spy:
    """An expert whose velocity is `k` everywhere; lost once it has answered `lives` times."""

    def __init__(self, k: int, lives: int = 1 << 30) -> None:
        self.k, self.lives, self.asked = k, lives, list[int]()

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        if len(self.asked) >= self.lives:
            raise ExpertLost(f"host {self.k} is away")
        self.asked.append(len(x))
        return torch.full_like(x, float(self.k))


class Remote(Spy):
    """The same through a future, which the ensemble awaits only when all have been asked."""

    started: list[str]

    def submit(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Future[Tensor]:
        self.started.append(f"ask {self.k}")
        remote, x = self, x.clone()

        class Later(Future[Tensor]):
            def result(self, timeout: float | None = None) -> Tensor:
                remote.started.append(f"await {remote.k}")
                return remote(x, t, condition)

        return Later()


def by_place(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    """The expert whose number is nearest to x's first value, all but certainly."""
    return -50 * (x[:, :1] - torch.arange(COUNT)) ** 2


def blank(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    return torch.zeros(len(x), COUNT)


def made(router=by_place, strategy="nucleus:0.9", lives=(9999,) * COUNT, kind=Spy, **more):
    experts = [kind(k, lives[k]) for k in range(COUNT)]
    return experts, Ensemble(experts, router, [0.5, 0.3, 0.2], strategy, **more)


def test_experts_are_asked_for_their_rows_alone_and_not_at_all_without_any() -> None:
    experts, ensemble = made(strategy="top_k:1")
    x = torch.tensor([[0.1, 0], [2.1, 0], [1.9, 0]])
    assert ensemble(x, torch.ones(3)).tolist() == [[0, 0], [2, 2], [2, 2]]
    assert [each.asked for each in experts] == [[1], [], [2]]
    assert ensemble.active == 1


def test_the_answer_is_the_weighted_mean() -> None:
    _, ensemble = made(lambda x, t, c: torch.tensor([[0.2, 0.3, 0.5]]).log(), "full")
    assert ensemble(torch.zeros(1, 4), torch.ones(1))[0].tolist() == pytest.approx([1.3] * 4)
    assert ensemble.weights(torch.zeros(1, 4), torch.ones(1)).sum() == 1
    assert ensemble.active == 3


def test_all_remote_experts_are_asked_before_the_first_is_awaited() -> None:
    Remote.started = []
    _, ensemble = made(blank, "full", kind=Remote)
    assert ensemble(torch.zeros(2, 1), torch.ones(2)).tolist() == [[1], [1]]
    assert Remote.started == [f"{what} {k}" for what in ("ask", "await") for k in range(COUNT)]


@pytest.mark.parametrize("kind", [Spy, Remote])
def test_a_lost_expert_is_masked_and_the_step_done_over(kind: type[Spy]) -> None:
    Remote.started = []
    _, ensemble = made(blank, "full", (9999, 0, 9999), kind)
    assert ensemble(torch.zeros(2, 1), torch.full((2,), 0.5)).tolist() == [[1], [1]]  # (0 + 2) / 2
    assert ensemble.lost == {1: "at t = 0.500: host 1 is away"}
    assert ensemble.weights(torch.zeros(1, 1), torch.ones(1)).tolist() == [[0.5, 0, 0.5]]


def test_too_little_live_weight_and_none_are_faults() -> None:
    _, ensemble = made(strategy="top_k:1", lives=(9999, 0, 9999))
    with pytest.raises(RuntimeFault, match=r"floor of 0.05.*expert 1, at t = 1.000: host 1"):
        ensemble(torch.ones(1, 2), torch.ones(1))
    _, ensemble = made(blank, "full", (0, 0, 0), floor=0.0)
    with pytest.raises(RuntimeFault, match="hold 0 of"):
        ensemble(torch.ones(1, 2), torch.ones(1))


def test_rows_committed_to_a_lost_expert_are_noted() -> None:
    _, ensemble = made(strategy="top_k:1", lives=(9999, 0, 9999))
    draw = Draw.of(0, range(3))
    with ensemble.following(draw):
        ensemble(torch.tensor([[0.0], [1.0], [2.0]]), torch.full((3,), 0.4))
    assert draw.committed.tolist() == [False, True, False]


@pytest.mark.parametrize("strategy", ["ancestral", "sample:1", "nucleus:0.9", "full@0.3, top_k:1"])
@pytest.mark.parametrize("batch", [None, 7])
def test_sampling_goes_on_without_a_lost_expert(strategy: str, batch: int | None) -> None:
    """Expert 2 dies on its way; everything moves by its expert's number, so that x at the end says
    how many steps each row has made with whom."""
    experts, ensemble = made(blank, strategy, (9999, 9999, 5))
    result = sample(ensemble, (40, 1), 10, seed=3, batch=batch)
    assert set(result.metadata["lost"]) == {"2"}
    assert len(experts[2].asked) == 5
    restarted = result.metadata["restarted"]
    if strategy == "ancestral":
        assert restarted
        unlucky = set(restarted)
        without = sample(made(blank, strategy)[1], (40, 1), 10, seed=3)
        same = [row for row in range(40) if row not in unlucky and (batch is None or row < 7)]
        assert torch.allclose(result.x[same], without.x[same])
        assert not torch.isclose(result.x[restarted], without.x[restarted]).any()
    else:
        assert restarted == []  # nobody's probability was above 1/2


def test_committed_rows_start_again_and_end_with_the_rest() -> None:
    """Velocities lead to the expert's own place, and the router goes by place."""

    class Towards(Spy):
        def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            super().__call__(x, t, condition)
            return (x - self.k) / t[:, None]

    def router(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return by_place(x, t) * (1 - t[:, None]) ** 2

    noise = 2 * torch.rand(60, 1, generator=torch.Generator().manual_seed(0))
    whole = sample(made(router, "full", kind=Towards)[1], noise, 20).x
    _, ensemble = made(router, "full", (9999, 9999, 15), Towards, floor=0.01)
    result = sample(ensemble, noise, 20)
    restarted = result.metadata["restarted"]
    assert 0 < len(restarted) < 60
    assert (whole[restarted].round() == 2).all()
    assert (result.x.round() < 2).all()


def test_a_class_that_only_the_lost_expert_knew_is_a_fault() -> None:
    def router(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return 20.0 * nn.functional.one_hot(condition, COUNT)

    for strategy in ("full", "ancestral"):
        _, ensemble = made(router, strategy, (9999, 9999, 3))
        with pytest.raises(RuntimeFault, match="floor"):
            sample(ensemble, (6, 1), 10, condition=torch.arange(6) % COUNT)


def test_guidance_asks_once_and_the_same_experts_for_both_halves() -> None:
    def router(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.where(condition[:, None] < 0, 0.0, 30.0 * nn.functional.one_hot(
            condition.clamp(min=0), COUNT))  # fmt: skip

    experts, ensemble = made(router, "top_k:1")
    answer = Guided(ensemble, 3.0)(torch.zeros(2, 1), torch.ones(2), torch.tensor([0, 2]))
    assert answer.tolist() == [[0], [2]]
    assert [each.asked for each in experts] == [[2], [], [2]]
    for text in ("sample:1", "ancestral"):
        experts, ensemble = made(router, text)
        Guided(ensemble, 3.0)(torch.zeros(9, 1), torch.ones(9), torch.zeros(9, dtype=torch.long))
        assert [each.asked for each in experts] == [[18], [], []]


def test_guidance_of_one_is_the_model_and_of_zero_ignores_the_condition() -> None:
    def model(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return x + condition[:, None]

    x, t, c = torch.randn(4, 2), torch.ones(4), torch.arange(4)
    assert torch.equal(Guided(model, 1)(x, t, c), x + c[:, None])
    assert torch.equal(Guided(model, 0)(x, t, c), x - 1)
    assert torch.allclose(Guided(model, 3)(x, t, c), x - 1 + 3 * (c[:, None] + 1))


def test_ancestral_needs_no_router_and_follows_the_prior() -> None:
    experts, ensemble = made(None, "ancestral")
    result = sample(ensemble, (2000, 1), 2)
    shares = torch.tensor([each.asked[0] for each in experts]) / 2000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.04)
    assert result.metadata["active"] == 1


def test_ancestral_with_a_condition_asks_the_router_once() -> None:
    asked = []

    def router(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        asked.append(t[0].item())
        return 50.0 * nn.functional.one_hot(condition, COUNT)

    experts, ensemble = made(router, "ancestral")
    sample(ensemble, (6, 1), 4, condition=torch.tensor([2, 2, 0, 0, 0, 0]))
    assert asked == [1.0]
    assert [each.asked for each in experts] == [[4] * 4, [], [2] * 4]


class Misshapen(Spy):
    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return super().__call__(x, t, condition)[:, :1]


class Wild(Spy):
    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return super().__call__(x, t, condition) / 0


def test_answers_that_cannot_be_used() -> None:
    x, t = torch.zeros(2, 3), torch.ones(2)
    with pytest.raises(ModelError, match=r"a router that answers \(2, 4\)"):
        made(lambda x, t, c: torch.zeros(2, 4))[1](x, t)
    with pytest.raises(RuntimeFault, match="not numbers"):
        made(lambda x, t, c: torch.full((2, 3), torch.nan))[1](x, t)
    with pytest.raises(ModelError, match=r"expert 0 answers \(2, 1\)"):
        made(blank, "full", kind=Misshapen)[1](x, t)
    with pytest.raises(RuntimeFault, match="not finite"):
        made(blank, "full", kind=Wild)[1](x, t)


def test_parts_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="no experts"):
        Ensemble([], blank)
    with pytest.raises(ConfigError, match="2 shares"):
        Ensemble([Spy(0)], blank, [0.5, 0.5])
    with pytest.raises(ConfigError, match="without a router"):
        Ensemble([Spy(0)], None, [1.0], "nucleus:0.9")
    with pytest.raises(ConfigError, match="without a router"):
        Ensemble([Spy(0)], None, None, "ancestral")


def test_an_ensemble_has_the_parameters_of_its_parts() -> None:
    class Line(nn.Linear):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            return super().forward(x)

    ensemble = Ensemble([Line(2, 2), Line(2, 2)], Line(2, 2), strategy="full")
    assert sum(each.numel() for each in ensemble.parameters()) == 18
    ensemble(torch.zeros(3, 2), torch.ones(3)).sum().backward()
    assert all(each.grad is not None for each in ensemble.experts[0].parameters())
    assert ensemble_in(Guided(ensemble, 2.0)) is ensemble
    assert ensemble_in(blank) is None


def test_a_shelf_holds_so_many_experts_and_no_more() -> None:
    class Number(nn.Module):
        def __init__(self, k: int) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor(float(k)))

        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            return x * 0 + self.k

    loaded = []

    def loader(k: int):
        return lambda: loaded.append(k) or Number(k)

    shelf = Shelf([loader(k) for k in range(COUNT)], keep=2)
    ensemble = Ensemble(shelf.experts, by_place, strategy="top_k:1")
    for order in ([0, 1], [0], [2], [0, 1]):
        x = torch.tensor(order, dtype=torch.float32)[:, None]
        assert ensemble(x, torch.ones(len(x)))[:, 0].tolist() == order
    assert loaded == [0, 1, 2, 1]
