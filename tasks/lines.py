"""Work that is cached line by line, inside one task run: a task run a line would cost more than most lines (the README has the figures)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import cached_property
from typing import Any, TypeVar

from blocks.store import Store, artifacts_in
from dubbing.keys import described, digest
from dubbing.lesson import Artifact, Noun, plain
from tasks.history import history_in_hand
from tasks.planning import LinesPlanned, Plan, PlannedLine, difference, plan_in_hand
from tasks.progress import Event, advance, tell, work_in_hand

_EARLIER_LINES = 3  # that a pack keeps for each line in use: what an edit changed is there when it is undone

Result = TypeVar("Result", bound=Noun)
Item = TypeVar("Item")


def line_by_line(
    store: Store,
    name: str,
    version: int,
    items: Sequence[Item],
    ids_of: Callable[[Item], Sequence[str]],
    common: Mapping[str, Any],
    own: Callable[[Item], Mapping[str, Any]],
    compute: Callable[[Item], Result],
    returns: type[Result],
    at_once: int = 1,
) -> list[Result]:
    """The results for all items, each computed once for the same inputs and kept as soon as it is made.

    A killed run loses the items in hand and nothing else. Where several runs of one lesson do the same work at once, one does it and the
    others wait. The records that were used are also kept together as one pack, so that a run which has all but a few of them makes a few
    requests.

    Args:
        ids_of: the lines that an item stands for.
        common: what shapes every item's result, by name, as `dubbing.keys` takes it.
        own: what else shapes an item's result.
        at_once: items in hand at a time, each in a thread of its own where there is more than one. When one fails, no other is begun, and
            those in hand are finished and kept before the failure is raised.
    """
    plan = plan_in_hand()
    pack_name = pack_of(name, version, common)
    shared = digest("common", common)
    addresses = [f"lines/{name}/v{version}/{digest('line', name, version, shared, own(item))}" for item in items]
    pack = Pack(store, pack_name)
    if plan:
        _plan_lines(plan, store, items, ids_of, own, addresses, pack)
        raise LinesPlanned
    total = sum(len(ids_of(item)) for item in items)
    computed = 0
    made: dict[str, Any] = {address: record for address in addresses if (record := pack.record(address)) is not None}
    if len(made) < len(set(addresses)):
        with store.claimed(pack_name, lambda: tell(Event(name, "waiting"))):
            pack = Pack(store, pack_name)  # whoever held the claim has written it anew
            made |= _found(store, addresses, made, pack)
            # The same line twice in a lesson is made once.
            missing = {address: item for address, item in zip(addresses, items, strict=True) if address not in made}
            store.fetch(artifact for item in missing.values() for artifact in artifacts_in(dict(own(item))))
            to_compute = sum(len(ids_of(item)) for item in missing.values())
            if missing:
                advance(0.0)
            for address, result in _computed(missing, compute, at_once):
                made[address] = plain(result)
                store.write_record(address, made[address])
                computed += len(ids_of(missing[address]))
                if computed < to_compute:
                    advance(computed / to_compute)
            pack.write({address: (ids_of(item), own(item), made[address]) for address, item in zip(addresses, items, strict=True)})
    work = work_in_hand()
    if work:
        work.count_lines(computed, total - computed)
    return [returns.model_validate(made[address]) for address in addresses]


def _computed(items: Mapping[str, Item], compute: Callable[[Item], Result], at_once: int) -> Iterator[tuple[str, Result]]:
    """Results by address, each as soon as it is there."""
    if at_once == 1:
        for address, item in items.items():
            yield address, compute(item)
        return
    waiting = iter(items.items())
    in_hand: dict[Future[Result], str] = {}
    failure: BaseException | None = None
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="lines")
    try:
        while True:
            while failure is None and len(in_hand) < at_once and (entry := next(waiting, None)):
                in_hand[pool.submit(copy_context().run, compute, entry[1])] = entry[0]
            if not in_hand:
                break
            for future in wait(in_hand, return_when=FIRST_COMPLETED).done:
                address = in_hand.pop(future)
                if (error := future.exception()) is None:
                    yield address, future.result()
                else:
                    failure = failure or error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # whoever interrupts waits for nobody
    if failure:
        raise failure


def _found(store: Store, addresses: Sequence[str], made: Mapping[str, Any], pack: Pack) -> dict[str, Any]:
    """Records that are in the pack or, one by one, in the store."""
    wanted = [address for address in dict.fromkeys(addresses) if address not in made]
    found = {address: record for address in wanted if (record := pack.record(address)) is not None}
    single = [address for address in wanted if address not in found]
    records = zip(single, store.read_records(single), strict=True)
    return found | {address: record for address, record in records if record is not None}


def pack_of(name: str, version: int, common: Mapping[str, Any]) -> str:
    """The name of the pack of a lesson's stage; `common` is what the lesson's own changes leave as it is."""
    plan, history = plan_in_hand(), history_in_hand()
    lesson = plan.lesson if plan else history.lesson.sha256 if history else ""
    return f"packs/{lesson or 'none'}/{name}/v{version}/{digest('group', common)}"


class Pack:
    """The line records that a lesson's stage used last, with what shaped each; the newest come last."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._content = store.read_record(name) or {}

    def record(self, address: str) -> Any | None:
        line = self._content.get(address)
        return None if line is None else line["record"]

    def inputs_of(self, ids: Sequence[str]) -> dict[str, Any] | None:
        """What shaped the line that stood here last."""
        return self._own_of_ids.get(tuple(ids))

    @cached_property
    def _own_of_ids(self) -> dict[tuple[str, ...], dict[str, Any]]:
        return {tuple(line["ids"]): line["own"] for line in self._content.values()}

    def write(self, lines: Mapping[str, tuple[Sequence[str], Mapping[str, Any], Any]]) -> None:
        content = {address: {"ids": list(ids), "own": _described(own), "record": record} for address, (ids, own, record) in lines.items()}
        if content.items() <= self._content.items():
            return
        earlier = {address: line for address, line in self._content.items() if address not in content}
        kept = list(earlier)[-(_EARLIER_LINES * len(content)) :]
        self._store.write_record(self._name, {**{address: earlier[address] for address in kept}, **content})


def _described(own: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{part}" if part else name: value for name in own for part, value in described(own[name]).items()}


def _plan_lines(
    plan: Plan,
    store: Store,
    items: Sequence[Item],
    ids_of: Callable[[Item], Sequence[str]],
    own: Callable[[Item], Mapping[str, Any]],
    addresses: Sequence[str],
    pack: Pack,
) -> None:
    """Tell a plan which lines are cached, and why the others aren't."""
    found = _found(store, addresses, {}, pack)
    lines: list[PlannedLine] = []
    needed: list[Artifact] = []
    for address, item in zip(addresses, items, strict=True):
        ids = tuple(ids_of(item))
        if address in found:
            lines.append(PlannedLine(ids, "cached"))
            continue
        before, now = pack.inputs_of(ids), _described(own(item))
        if before is None:
            why = "no such line was computed with these settings"
        else:
            names = sorted({*before, *now})
            changes = [difference(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]
            why = "; ".join(changes) or "computed before, but its record or what it points at is gone"
        lines.append(PlannedLine(ids, "to compute", why))
        needed += artifacts_in(dict(own(item)))
    plan.note_lines(lines, needed)
