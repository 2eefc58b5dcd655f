"""Which models are in memory, in this process: each is loaded once, kept while it is useful, and gives way when another needs its place.

    with residence.use(self, "network", load, device="cuda", size=weights.find("htdemucs").size) as network:
        …

A model belongs to every engine that used it and was not closed since; engines with the same settings share one (two lessons, or two
stages of one lesson). It is idle while nobody is inside such a block. An idle model is dropped

- when the last engine that it belongs to is closed: at once, or after that engine's `keep_loaded_for` seconds;
- when another is to be loaded on the same device and would not fit beside it: the one that was used longest ago first;
- when loading or using another runs out of memory all the same.

Nothing is ever dropped while it is used.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from dubbing import devices

logger = logging.getLogger("coursedub.residence")

HEADROOM = 1.2  # times a model's size that loading it takes: what it computes with, and copies while it is read


class _Model:
    """One that is in memory, or about to be."""

    def __init__(self, name: str, device: str, size: int) -> None:
        self.name, self.device, self.size = name, device, size
        self.loading = threading.Lock()
        self.loaded: Any = None
        self.users = 0  # inside a `use` block just now
        self.owners: dict[int, float] = {}  # id of an engine -> seconds it wants the model kept after it was closed
        self.last_used = time.monotonic()
        self.timer: threading.Timer | None = None


class Residence:
    """The register. One for the process (`residence`), others for tests."""

    def __init__(self, free_memory: Callable[[str], int | None] = devices.free_memory) -> None:
        self._free_memory = free_memory
        self._lock = threading.RLock()
        self._models: dict[Hashable, _Model] = {}

    @contextmanager
    def use(
        self,
        owner: object,
        key: Hashable,
        load: Callable[[], Any],
        *,
        device: str,
        size: int,
        name: str,
        keep_for: float = 0.0,
    ) -> Iterator[Any]:
        """The model, loaded if it is not there.

        Args:
            owner: the engine. Closing it, or forgetting it, lets its models go.
            key: what makes two models the same: class and settings.
            size: bytes that it takes on the device, about.
            keep_for: seconds it stays after its last owner was closed.
        """
        with self._lock:
            model = self._models.setdefault(key, _Model(name, device, size))
            model.users += 1
            if model.timer:
                model.timer.cancel()
                model.timer = None
            if id(owner) not in model.owners:
                weakref.finalize(owner, self._disown, id(owner)).atexit = False
            model.owners[id(owner)] = keep_for
        try:
            with model.loading:
                if model.loaded is None:
                    self._make_room(device, int(HEADROOM * size))
                    model.loaded = self._loaded(load, device)
            yield model.loaded
        finally:
            with self._lock:
                model.users -= 1
                model.last_used = time.monotonic()
                if not model.users and (model.loaded is None or not model.owners):  # loading failed, or it was closed meanwhile
                    self._drop(key)

    def close(self, owner: object) -> None:
        """An engine needs its models no more."""
        self._disown(id(owner))

    def make_room(self, device: str, but: str = "") -> bool:
        """Drop every idle model on a device but the one of this name, since memory ran out. Whether there was one.

        What torch keeps for itself of the memory it has had goes back too: other libraries on the device have no use of it.
        """
        with self._lock:
            idle = [key for key in self._idle(device) if self._models[key].name != but]
            for key in idle:
                self._drop(key)
            devices.release(device)
        return bool(idle)

    def loaded(self) -> list[str]:
        """Names of the models in memory, the one used longest ago first."""
        with self._lock:
            loaded = [model for model in list(self._models.values()) if model.loaded is not None]
            return [model.name for model in sorted(loaded, key=lambda model: model.last_used)]

    def _loaded(self, load: Callable[[], Any], device: str) -> Any:
        again = False
        try:
            return load()
        except Exception as error:
            if not devices.is_out_of_memory(error) or not self._idle(device):
                raise
            again = True
        assert again  # outside of the handler, so that what the failure holds is gone
        self.make_room(device)
        return load()

    def _make_room(self, device: str, needed: int) -> None:
        with self._lock:
            for key in self._idle(device):
                free = self._free_memory(device)
                if free is None or free >= needed:
                    return
                if key in self._models:
                    name = self._models[key].name
                    logger.info("%s gives way: %d MB are needed on %s, %d MB are free", name, needed >> 20, device, free >> 20)
                    self._drop(key)

    def _idle(self, device: str) -> list[Hashable]:
        """Keys of the models that nobody uses just now, the one used longest ago first."""
        with self._lock:
            models = list(self._models.items())  # a copy: an engine that is forgotten just now takes its models out
            idle = [
                (model.last_used, key) for key, model in models if model.device == device and model.loaded is not None and not model.users
            ]
            return [key for _, key in sorted(idle, key=lambda pair: pair[0])]

    def _disown(self, owner: int) -> None:
        with self._lock:
            for key, model in list(self._models.items()):
                keep_for = model.owners.pop(owner, None)
                if keep_for is None or model.owners or model.users:
                    continue
                if keep_for:
                    model.timer = threading.Timer(keep_for, self._drop_if_unowned, [key, model])
                    model.timer.daemon = True
                    model.timer.start()
                else:
                    self._drop(key)

    def _drop_if_unowned(self, key: Hashable, model: _Model) -> None:
        with self._lock:
            if self._models.get(key) is model and not model.owners and not model.users:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        model = self._models.pop(key, None)
        if model is None:
            return
        if model.timer:
            model.timer.cancel()
        model.loaded = None
        devices.release(model.device)


residence = Residence()
