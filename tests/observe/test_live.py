"""The view while a run goes on: few plain lines without a terminal, one table with one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from decent.observe import LiveView, PlainView, describe, view
from decent.observe.live import SPARE_LINES
from observe.outcomes import statuses

NAMES = [str(i) for i in range(8)]


def console(terminal: bool = False, height: int = 30) -> Console:
    return Console(
        file=io.StringIO(), width=80, height=height, force_terminal=terminal, color_system=None
    )


def written(on: Console) -> str:
    text: str = on.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_status_in_words() -> None:
    assert describe(statuses()) == (
        "training: 8 workers, steps 300–370 of 1000, loss 0.41, 14 exchanges each, 3.2 MB sent"
    )


def test_the_state_is_that_of_the_last_of_the_living() -> None:
    now = statuses(state="done")
    now[0]["state"], now[1]["state"] = "dead", "merging"
    assert describe(now).startswith("merging: 8 workers, 1 dead, steps 310–370")
    assert describe(statuses(3, state="dead")) == "dead: 3 workers, 3 dead"


@pytest.mark.parametrize("given", [[], [{"worker": 0}], [{"worker": 0, "loss": float("nan")}]])
def test_keys_may_be_missing(given: list[dict[str, float]]) -> None:
    assert describe(given).startswith("starting: ")
    with LiveView(console(True), "a run", NAMES) as live:
        live(given)


def test_the_view_suits_the_console() -> None:
    assert isinstance(view(console(True), "a run", NAMES), LiveView)
    assert isinstance(view(console(False), "a run", NAMES), PlainView)


def test_plain_lines_come_when_due_and_when_the_state_changes() -> None:
    now_s = 0.0
    on = console()
    with PlainView(on, every_s=3.0, clock=lambda: now_s) as plain:
        for tenth in range(70):
            now_s = tenth / 10
            plain(statuses(step=tenth, state="training" if tenth < 65 else "merging"))
    states = [line.split(":")[0] for line in written(on).splitlines()]
    assert states == ["training", "training", "training", "merging", "merging"]


def test_without_a_status_there_is_no_line() -> None:
    on = console()
    with PlainView(on):
        pass
    assert written(on) == ""


def test_the_table_has_a_bar_for_each_worker() -> None:
    on = console(True)
    on.print(LiveView(on, "digits", NAMES).render(statuses()))
    text = written(on)
    assert text.count("━") > 8 * 3
    assert "370/1000" in text
    assert max(map(len, text.splitlines())) <= 80


def test_more_workers_than_lines_are_counted() -> None:
    on = console(True, height=24)
    names = [str(i) for i in range(40)]
    on.print(LiveView(on, "digits", names).render(statuses(40)))
    assert f"… and {40 - (24 - SPARE_LINES)} more" in written(on)
    assert len(written(on).splitlines()) < 24


def interrupted(live: LiveView) -> None:
    with live:
        live(statuses())
        raise KeyboardInterrupt


def test_the_cursor_comes_back_however_it_ends() -> None:
    on = console(True)
    with pytest.raises(KeyboardInterrupt):
        interrupted(LiveView(on, "digits", NAMES))
    hidden, shown = (written(on).rfind(code) for code in ("\x1b[?25l", "\x1b[?25h"))
    assert 0 <= hidden < shown
