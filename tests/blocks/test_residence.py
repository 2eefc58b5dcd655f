"""Models in memory: loaded once, kept while useful, dropped where another needs the place. With models and devices that are played."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from blocks.residence import Residence
from blocks.separation import SpleeterSeparator

MIB = 1 << 20


class Model:
    def __init__(self, name: str) -> None:
        self.name = name


class Engine:
    """Has one model of a hundred MiB or so."""

    def __init__(self, house: House, name: str, size: int = 100 * MIB, device: str = "cuda", keep_for: float = 0.0) -> None:
        self.house, self.name, self.size, self.device, self.keep_for = house, name, size, device, keep_for

    def model(self) -> AbstractContextManager[Any]:
        load = lambda: self.house.load(self.name)  # noqa: E731
        return self.house.residence.use(self, self.name, load, device=self.device, size=self.size, name=self.name, keep_for=self.keep_for)

    def work(self) -> Model:
        with self.model() as model:
            return model

    def close(self) -> None:
        self.house.residence.close(self)


class House:
    """A residence on a device of a thousand MiB."""

    def __init__(self) -> None:
        self.residence = Residence(self.free)
        self.loads: list[str] = []
        self.sizes: dict[str, int] = {}
        self.known = True  # whether the device says what is free
        self.failing: Callable[[str], Exception | None] = lambda name: None

    def free(self, device: str) -> int | None:
        return 1000 * MIB - sum(self.sizes.get(name, 0) for name in self.residence.loaded()) if self.known else None

    def load(self, name: str) -> Model:
        self.loads.append(name)
        if error := self.failing(name):
            raise error
        return Model(name)

    def engine(self, name: str, size: int = 100, **more: Any) -> Engine:
        self.sizes[name] = size * MIB
        return Engine(self, name, size * MIB, **more)


@pytest.fixture
def house() -> House:
    return House()


def test_a_model_is_loaded_once(house: House) -> None:
    engine = house.engine("whisper")
    assert engine.work() is engine.work()
    assert house.loads == ["whisper"]


def test_engines_with_the_same_settings_share_one(house: House) -> None:
    first, second = house.engine("whisper"), house.engine("whisper")
    assert first.work() is second.work()
    first.close()
    assert house.residence.loaded() == ["whisper"]
    second.close()
    assert house.residence.loaded() == []


def test_a_closed_engine_s_model_is_gone_and_comes_back_when_asked_for(house: House) -> None:
    engine = house.engine("whisper")
    gone = weakref.ref(engine.work())
    engine.close()
    assert gone() is None
    engine.work()
    assert house.loads == ["whisper", "whisper"]


def test_it_may_be_kept_for_the_next_lesson(house: House) -> None:
    lesson = house.engine("whisper", keep_for=60.0)
    lesson.work()
    lesson.close()
    next_lesson = house.engine("whisper")
    next_lesson.work()
    assert house.loads == ["whisper"]


def test_what_is_kept_is_dropped_after_its_time(house: House) -> None:
    engine = house.engine("whisper", keep_for=0.05)
    engine.work()
    engine.close()
    until = time.monotonic() + 60
    while house.residence.loaded() and time.monotonic() < until:
        time.sleep(0.01)
    assert house.residence.loaded() == []


def test_an_engine_that_is_forgotten_leaves_nothing_behind(house: House) -> None:
    engine = house.engine("whisper")
    engine.work()
    del engine
    gc.collect()
    assert house.residence.loaded() == []


def test_where_both_fit_both_stay(house: House) -> None:
    engines = [house.engine(name, 300) for name in "abc"]
    for engine in engines:
        engine.work()
    assert house.residence.loaded() == ["a", "b", "c"]


def test_the_one_used_longest_ago_gives_way(house: House) -> None:
    engines = {name: house.engine(name, 300) for name in "abc"}
    for name in "abcb":
        engines[name].work()
    needy = house.engine("d", 400)  # with headroom 480: two must go
    needy.work()
    assert house.residence.loaded() == ["b", "d"]


def test_what_is_in_use_stays_whatever_comes(house: House) -> None:
    one, other = house.engine("a", 900), house.engine("b", 900)
    with one.model() as model:
        other.work()
        assert house.residence.loaded() == ["a", "b"]
        one.close()
        assert model.name == "a"
    assert house.residence.loaded() == ["b"]  # closed while it was used: dropped after


def test_another_device_s_models_are_left_alone(house: House) -> None:
    on_cpu = house.engine("a", 900, device="cpu")
    on_cpu.work()
    other = house.engine("b", 900)
    other.work()
    assert house.residence.loaded() == ["a", "b"]


def test_where_nobody_knows_what_is_free_nothing_gives_way(house: House) -> None:
    house.known = False
    engines = [house.engine(name, 900) for name in "ab"]
    for engine in engines:
        engine.work()
    assert house.residence.loaded() == ["a", "b"]


def test_loading_that_runs_out_of_memory_is_tried_again_when_the_idle_are_gone(house: House) -> None:
    house.known = False
    idle = house.engine("a")
    idle.work()
    house.failing = lambda name: RuntimeError("CUDA failed with error out of memory") if house.residence.loaded() else None
    wanted = house.engine("b")
    wanted.work()
    assert house.loads == ["a", "b", "b"]
    assert house.residence.loaded() == ["b"]


def test_loading_that_fails_leaves_no_trace(house: House) -> None:
    house.failing = lambda name: RuntimeError("CUDA error: device-side assert triggered")
    engine = house.engine("a")
    with pytest.raises(RuntimeError, match="assert"):
        engine.work()
    house.failing = lambda name: None
    assert engine.work().name == "a"
    assert house.loads == ["a", "a"]


def test_two_threads_load_one(house: House) -> None:
    engine, gate, found = house.engine("a"), threading.Event(), []
    load = house.load

    def slowly(name: str) -> Model:
        gate.wait(60)
        return load(name)

    house.load = slowly  # type: ignore[method-assign]
    threads = [threading.Thread(target=lambda: found.append(engine.work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4 and len(set(map(id, found))) == 1
    assert house.loads == ["a"]


def test_room_is_made_for_one_that_ran_out(house: House) -> None:
    engines = [house.engine(name) for name in "abc"]
    for engine in engines:
        engine.work()
    with engines[0].model():
        assert house.residence.make_room("cuda")
        assert house.residence.loaded() == ["a"]
        assert not house.residence.make_room("cuda")


def test_where_no_model_is_idle_a_library_gives_back_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU another library has no use of what torch keeps: CTranslate2 tries again after this."""
    released: list[str] = []
    monkeypatch.setattr("blocks.residence.devices.release", released.append)
    assert not Residence(lambda device: None).make_room("cuda")
    assert released == ["cuda"]


def test_two_separators_of_the_same_settings_load_the_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real block, with a network that is played."""
    from dubbing import spleeter, weights

    loads = []
    monkeypatch.setattr(weights, "folder_of", lambda name, progress=None: Path())
    monkeypatch.setattr(spleeter, "load", lambda folder, threads: loads.append(threads) or (lambda magnitudes: magnitudes))
    monkeypatch.setattr(spleeter, "separate", lambda *arguments: None)
    monkeypatch.setattr("blocks.engine.residence", Residence(lambda device: None))  # what is played here, no other test is to find loaded
    engines = [SpleeterSeparator(), SpleeterSeparator(keep_loaded_for=5), SpleeterSeparator(threads=1)]
    for engine in engines:
        engine.separate(Path("a"), Path("b"), Path("c"), lambda share: None)
    assert loads == [0, 1]
