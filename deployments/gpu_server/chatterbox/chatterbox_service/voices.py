"""Voices that can be asked for by name: recordings in a folder, `NAME.wav` or another kind of sound file.

A name from a request is only compared with the names in the folder, never made into a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chatterbox_service.errors import BadReference, BodyTooLarge, UnknownVoice
from chatterbox_service.references import Reference, References

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff"})


class Voices:
    def __init__(self, folder: Path | None, references: References) -> None:
        self._folder, self._references = folder, references
        self._seen: dict[Path, tuple[tuple[int, int, int], Reference]] = {}  # files read before, by what they looked like

    def find(self, name: str) -> Reference:
        """
        Raises:
            UnknownVoice
            BadReference: its recording is damaged, or no voice can be cloned from it.
        """
        for path in self._files():
            if path.stem == name:
                return self._read(path)
        raise UnknownVoice(f"voice {name[:64]!a}: there is none of this name; GET /api/voices lists them")

    def listed(self) -> list[dict[str, Any]]:
        """Each voice by name, with what is wrong with its recording if it can't be used."""
        found: list[dict[str, Any]] = []
        for path in self._files():
            try:
                reference = self._read(path)
            except (BadReference, BodyTooLarge, UnknownVoice) as error:
                found.append({"name": path.stem, "error": str(error)})
            else:
                found.append({"name": path.stem, "reference": reference.name, "duration_seconds": round(reference.duration, 3)})
        return found

    def _files(self) -> Iterator[Path]:
        """Sound files of the folder itself, the first of each name. Links that lead out of it are none."""
        if self._folder is None or not self._folder.is_dir():
            return
        folder = self._folder.resolve()
        names: set[str] = set()
        for path in sorted(folder.iterdir()):
            inside = path.is_file() and path.resolve().parent == folder
            if inside and path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.stem not in names:
                names.add(path.stem)
                yield path

    def _read(self, path: Path) -> Reference:
        try:
            facts = path.stat()
            looks = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            seen = self._seen.get(path)
            if seen is None or seen[0] != looks:
                if facts.st_size > self._references.max_bytes:
                    raise BodyTooLarge(f"voice {path.stem}: {facts.st_size} bytes, at most {self._references.max_bytes}")
                seen = self._seen[path] = (looks, self._references.add(path.read_bytes()))
        except OSError as error:
            raise UnknownVoice(f"voice {path.stem}: can't be read: {error.strerror}") from error
        return seen[1]
