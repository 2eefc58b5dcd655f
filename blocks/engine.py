"""What every engine has in common, whatever it does.

An engine is a Prefect block: its fields are its settings, saved and edited in the Prefect UI like any block's. A family (separation,
transcription, translation, speech) is one module with a base class of its own below this one, which says how to add an engine to it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from prefect.blocks.core import Block

from dubbing import weights
from dubbing.privacy import report_nothing

report_nothing()  # an engine's package is imported by a method of one of the blocks below


class Engine(Block):
    """Settings of one engine and the way to run it.

    To add an engine: subclass the family's base class; name the `packages` whose version shapes the output and the `weights_names` it
    loads; import the heavy package inside the method that first needs it; list in `settings_without_effect` the fields that can't change
    a single output byte. The contract tests in `tests/blocks/` pick the class up from its family's table.
    """

    engine_name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    settings_without_effect: ClassVar[frozenset[str]] = frozenset()

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
            "packages": {package: _installed_version(package) for package in self.packages},
        }

    def close(self) -> None:
        """Free the model's memory. The engine loads it again when next used."""


def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
