"""Whether what is left of a run under faults adds up.

It does if nothing hung, nobody ended but those killed, the books of the survivors balance and are
closed, and the survivors have merged once, all of them, among the same workers. What was in flight
with one that died is settled by rule, and no error (see `decent.worker.audit`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decent.chaos.storm import Storm
from decent.errors import InputError
from decent.worker.audit import Report, audit
from decent.worker.books import read

Dict = dict[str, Any]
COUNTED = (
    "started", "completed", "answered", "abandoned", "repeated", "duplicates", "damaged", "refused"
)  # fmt: skip


def judge(run: Path, workers: int, storm: Storm, outcome: Mapping[str, Any], hang: str) -> Dict:
    """All that there is to say, as it stands in chaos.json; `ok` is whether it adds up."""
    survivors = [worker for worker in range(workers) if worker not in storm.killed]
    results = {each["id"]: each for each in outcome.get("results", ())}
    report = _audit(run)
    culprits = [hang] if hang else []
    culprits += _ended(survivors, outcome.get("faults", ()))
    culprits += _books(survivors, report)
    if not hang:
        culprits += _merge(survivors, results)
    among = next((results[me].get("merged_among") for me in survivors if me in results), None)
    return {
        "ok": not culprits, "culprits": culprits, "hang": bool(hang),
        "faults": _faults(storm), "messages": storm.messages(),
        "killed": sorted(storm.killed), "survivors": survivors,
        "exchanges": _exchanges(results.values()), "audit": _as_dict(report),
        "merged_among": among or [],
    }  # fmt: skip


def _audit(run: Path) -> Report | None:
    try:
        return audit(read(run))
    except InputError:
        return None


def _ended(survivors: Sequence[int], faults: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"worker {fault['worker']} ended after {fault['at_s']:.1f} s, and nobody killed it: "
        f"{fault['what']}"
        for fault in faults
        if fault["worker"] in survivors
    ]


def _books(survivors: Sequence[int], report: Report | None) -> Iterator[str]:
    if report is None:
        yield "there is no ledger"
        return
    yield from (each.what for each in report.culprits)
    for each in report.settled:
        if {*survivors} >= {*each.exchange.edge}:
            yield f"{each.exchange}: mixed at one end alone, and both live: {each.why}"
    for worker in sorted({*survivors} & {*report.unclosed}):
        yield f"worker {worker} lives, and has not closed its books"


def _merge(survivors: Sequence[int], results: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    found = {me: results.get(me, {}).get("merged_among") or [] for me in survivors}
    for worker, among in found.items():
        if missing := sorted({*survivors} - {*among}):
            yield f"worker {worker} was merged among {among}, without {missing}, who live"
    if len({tuple(among) for among in found.values()}) > 1:
        yield f"not all were merged among the same: {found}"


def _faults(storm: Storm) -> Dict:
    injected, hits = Counter(fault.kind for fault in storm.injected), storm.hits()
    kinds = {
        kind: {"injected": count, "messages": hits.get(kind)}
        for kind, count in sorted(injected.items())
    }
    return {"injected": len(storm.injected), "missed": len(storm.missed), "kinds": kinds}


def _exchanges(results: Any) -> Dict:
    stats = [each.get("stats") or {} for each in results]
    return {name: round(sum(each.get(name, 0) for each in stats), 3) for name in COUNTED}


def _as_dict(report: Report | None) -> Dict | None:
    if report is None:
        return None
    return {
        "balanced": report.balanced, "off": report.off, "bound": report.bound,
        "exchanges": sum(edge.exchanges for edge in report.edges),
        "chunks": sum(edge.chunks for edge in report.edges),
        "settled_by_rule": len(report.settled), "unclosed": report.unclosed,
    }  # fmt: skip
