"""What every engine has in common, whatever it does.

An engine is a Prefect block: its fields are its settings, saved and edited in the Prefect UI like any block's. A family (separation,
transcription, translation, speech) is one module with a base class of its own below this one, which says how to add an engine to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field

from blocks.residence import residence
from dubbing import weights
from dubbing.errors import BadSetting
from dubbing.privacy import report_nothing

NOT_INSTALLED = "not installed"

report_nothing()  # an engine's package is imported by a method of one of the blocks below


class Engine(Block):
    """Settings of one engine and the way to run it.

    To add an engine: subclass the family's base class; name the `packages` whose version shapes the output and the `weights_names` it
    loads; import the heavy package inside the method that first needs it; list in `settings_without_effect` the fields that can't change
    a single output byte. The contract tests in `tests/blocks/` pick the class up from its family's table.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # what is refused may be a secret

    engine_name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    packages_without_effect: ClassVar[tuple[str, ...]] = ()
    """That it needs too, and whose version shapes nothing: a server's client."""
    extra: ClassVar[str] = ""
    """Of this project, that installs the packages; empty for what is always there."""
    settings_without_effect: ClassVar[frozenset[str]] = frozenset()
    for_gpu: ClassVar[bool] = False
    """Whether the GPU server is its place: its model is slow elsewhere, or the service that it asks is there."""

    def wants_gpu(self) -> bool:
        return self.for_gpu

    def weights_names(self) -> tuple[str, ...]:
        """Catalogue names of the weights this engine loads."""
        return ()

    def fingerprint(self) -> dict[str, Any]:
        """Everything about this engine that shapes its output, as plain JSON values: it goes into the cache keys.

        Class, settings, digests of the weights, versions of the packages that compute. Not threads, not devices' names, not secrets.
        """
        settings = self.model_dump(mode="json", exclude=set(self.settings_without_effect), include=set(type(self).model_fields))
        settings.pop("block_type_slug", None)
        # An engine inside an engine counts by its own fingerprint: its threads have no effect here either.
        settings |= {name: part.fingerprint() for name, part in self if name in settings and isinstance(part, Engine)}
        return {
            "engine": type(self).__name__,
            "settings": settings,
            "weights": {name: weights.find(name).digest() for name in self.weights_names()},
            "packages": {package: _version(package) for package in self.packages},
        }

    def require_packages(self) -> None:
        """To be called before the heavy package is imported.

        Raises:
            BadSetting: it is not installed.
        """
        require_packages([self])

    def missing_packages(self) -> list[str]:
        """What its extra would install and isn't installed here."""
        needed = (*self.packages, *self.packages_without_effect) if self.extra else ()
        return [package for package in needed if installed_version(package) == NOT_INSTALLED]

    def close(self) -> None:
        """Free the model's memory. The engine loads it again when next used."""


class LocalEngine(Engine):
    """An engine with models of its own, in this process. They are loaded when first used, and shared (`blocks.residence`).

    A subclass adds it to its family's base, and names `keep_loaded_for` in `settings_without_effect`:

        with self.loaded(load, of=("model", "threads"), device="cuda", size=…) as model:
    """

    keep_loaded_for: float = Field(default=0.0, ge=0, description="Seconds that its models stay in memory after it was closed.")

    def loaded(
        self, load: Callable[[], Any], *, of: tuple[str, ...], device: str, size: int, part: str = ""
    ) -> AbstractContextManager[Any]:
        """A model to be used inside a `with` block; loaded if neither this engine nor another that would load the same has done so.

        Args:
            of: the settings that it is loaded with.
            size: bytes that it takes on the device, about.
            part: which one, for an engine that has several.
        """
        key = (type(self).__qualname__, part, device, *(repr(getattr(self, setting)) for setting in of))
        name = f"{self.engine_name}, {part}" if part else self.engine_name
        return residence.use(self, key, load, device=device, size=size, name=name, keep_for=self.keep_loaded_for)

    def close(self) -> None:
        residence.close(self)


def require_packages(engines: Iterable[Engine], profile: str = "") -> None:
    """
    Args:
        profile: that the engines are of, for the message.

    Raises:
        BadSetting: packages of these engines are not installed; it names them all, and the one command that installs them.
    """
    lacking = [(engine, missing) for engine in engines if (missing := engine.missing_packages())]
    if lacking:
        names = ", ".join(engine.engine_name for engine, _ in lacking)
        packages = ", ".join(dict.fromkeys(package for _, missing in lacking for package in missing))
        extras = ",".join(dict.fromkeys(engine.extra for engine, _ in lacking))
        look = f"; `coursedub doctor --profile {profile}` tells what else is missing" if profile else ""
        raise BadSetting(f"{names}: not installed here: {packages}; pip install 'coursedub[{extras}]' does it{look}")


def engines_of(inputs: Mapping[str, Any]) -> list[Engine]:
    """The engines among a stage's inputs."""
    return [value for value in inputs.values() if isinstance(value, Engine)]


def installed_version(package: str) -> str:
    """The version, or NOT_INSTALLED."""
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


_versions: ContextVar[Mapping[str, str] | None] = ContextVar("versions", default=None)


@contextmanager
def with_packages_of_another(versions: Mapping[str, str]) -> Iterator[None]:
    """Engines inside the block count as they do on another machine, where these packages are installed: what was computed there is found
    here in the cache, and a plan here tells what would be computed there."""
    token = _versions.set(versions)
    try:
        yield
    finally:
        _versions.reset(token)


def _version(package: str) -> str:
    elsewhere = _versions.get() or {}
    return elsewhere.get(package) or installed_version(package)
