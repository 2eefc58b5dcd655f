"""Every failure the pipeline can name, as a small tree that says what to do next.

Each leaf is one kind of failure with an exit code of its own, so that a script (or the Django platform) can tell them apart without reading
prose. The message is one line that names the file or field and the limit. Three branches, as the pipeline treats them:

- `BadInput`: the request can't succeed as it stands. No retry, nothing half-written.
- `PassingFault`: the same request may succeed later. Retried with back-off.
- `EngineRefused`: this engine can't do it, another might.

A bug is any other exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class CoursedubError(Exception):
    """A failure with a one-line message for a person and an exit code for a script."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        # A hostile file name may hold newlines or terminal escapes: the message stays one printable line.
        super().__init__("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message))


class BadInput(CoursedubError):
    """The input or a setting is wrong; trying again won't help."""

    exit_code = 10


class SourceNotFound(BadInput):
    exit_code = 11


class SourceEmpty(BadInput):
    """The file has no bytes, or no playing time."""

    exit_code = 12


class NotMedia(BadInput):
    """The content is not a container that we read, whatever its name says."""

    exit_code = 13


class SourceTruncated(BadInput):
    exit_code = 14


class SourceTooLarge(BadInput):
    exit_code = 15


class SourceTooLong(BadInput):
    exit_code = 16


class NoSound(BadInput):
    """There is a picture, but no audio stream."""

    exit_code = 17


class SilentSource(BadInput):
    """There is an audio stream, but nothing in it."""

    exit_code = 18


class NoSpeech(BadInput):
    """There is sound, but nobody speaks."""

    exit_code = 19


class UnsupportedLanguage(BadInput):
    exit_code = 20


class BadSetting(BadInput):
    """A setting's value is unknown or out of range."""

    exit_code = 21


class BadManifest(BadInput):
    """A course's manifest has errors: all of them, each by row and column."""

    exit_code = 22
    SHOWN = 5  # in the one line of the message

    def __init__(self, name: str, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        more = f"; and {len(self.errors) - self.SHOWN} more" if len(self.errors) > self.SHOWN else ""
        super().__init__(f"{name}: {'; '.join(self.errors[: self.SHOWN])}{more}")


class LessonsFailed(CoursedubError):
    """A course is done, and some of its lessons are not."""

    exit_code = 42


class PassingFault(CoursedubError):
    """Something outside failed in a way that may pass."""

    exit_code = 30


class DownloadFailed(PassingFault):
    exit_code = 31


class WeightsUnavailable(PassingFault):
    """No source of a model's weights could be reached."""

    exit_code = 32


class StoreFailed(PassingFault):
    """The store can't be read or written: disk full, no permission."""

    exit_code = 33


class ServiceDown(PassingFault):
    """A service that an engine asks can't be used now: nobody answers, or what answers can't serve. It was waited for already."""

    exit_code = 34

    def __init__(self, service: str, why: str) -> None:
        self.service = service  # the engine's name
        super().__init__(f"{service}: {why}")


class CloudDown(PassingFault):
    """The cloud that the GPU server is in can't be asked, or doesn't answer as it should."""

    exit_code = 35


class LeasesDown(PassingFault):
    """The database of leases on the GPU server can't be reached."""

    exit_code = 36


class NoLease(PassingFault):
    """The GPU server may not be used now: a person forbids it, a limit is reached, or a lease has ended."""

    exit_code = 37


class ServerNotReady(PassingFault):
    """The GPU server didn't get into the wanted state in time: no capacity, say."""

    exit_code = 38


class PersonNeeded(CoursedubError):
    """The GPU server is in a state that no step leads out of."""

    exit_code = 39


class EngineRefused(CoursedubError):
    """An engine can't do what it was asked; another one may."""

    exit_code = 40


class WeightsRefused(EngineRefused):
    """A model's weights are not the ones that were pinned: never loaded."""

    exit_code = 41


class QuotaReached(EngineRefused):
    """A service wants to be paid, or its plan is used up: a person has to see to that."""

    exit_code = 43


class BlobDamaged(CoursedubError):
    """Stored blobs are missing or not what their digests say. The flow computes them again; a person sees this only if that fails too."""

    exit_code = 50

    def __init__(self, sha256s: Iterable[str], why: str) -> None:
        self.sha256s = tuple(sha256s)
        more = f" and {len(self.sha256s) - 1} more" if len(self.sha256s) > 1 else ""
        super().__init__(f"stored blob {self.sha256s[0][:12]}{more} {why}")


def same_failure(kind: str, message: str) -> CoursedubError:
    """A failure that another process met, by the name of its class.

    >>> same_failure("SilentSource", "lesson.mp4: silent").exit_code, same_failure("KeyError", "x").exit_code
    (18, 1)
    """
    found = next((one for one in _kinds(CoursedubError) if one.__name__ == kind), CoursedubError)
    while found.__init__ is not CoursedubError.__init__:  # its message was put together already
        found = found.__mro__[1]
    return found(message)


def _kinds(root: type[CoursedubError]) -> Iterator[type[CoursedubError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
