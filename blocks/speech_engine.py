"""What every engine that speaks has in common: text in, sound out. The engines themselves are listed in `blocks.speech`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from blocks.engine import Engine
from dubbing import audio
from dubbing.errors import BadSetting, EngineRefused, UnsupportedLanguage
from dubbing.languages import name_of
from dubbing.pace import natural_pace

LOW_VOICE = 165.0  # Hz: median pitch between men's (85-155) and women's (165-255) speaking voices; Titze, Principles of Voice Production
CLONE = "lecturer"  # the voice of whoever speaks the line in the lesson

SLOWEST = 3.0  # characters a second: slower speech has a hole or a loop in it
FASTEST = 40.0  # faster speech has lost words
FEWEST_CHARACTERS = 15  # that those two rates mean anything for; fewer may take as long as these at their slowest
QUIETEST = 0.01  # peak of a clip, from its mean: below it nothing was said
LOUD = 0.7  # peak of a clip that may have been clipped, even if it was turned down a little since
MOST_CLIPPED = 0.001  # of a clip's samples: more is heard as distortion
FLATTEST = 0.5  # of the mean spectrum, geometric by arithmetic mean: white noise has 1, sentences of Kokoro 0.05 to 0.11
SILENT = "the clip is silent"
BROKEN = "the clip has samples that are no numbers"
NO_SPEECH = (SILENT, BROKEN)  # what is refused, whatever else a clip has


class Speech(NamedTuple):
    samples: np.ndarray  # mono, float32
    sample_rate: int
    seed: int | None = None  # that it was spoken with, where it isn't the one that was asked for
    doubts: tuple[str, ...] = ()  # what the engine itself finds wrong with it
    revision: str = ""  # of a model behind a service


class Sample(NamedTuple):
    """Some seconds of somebody's speech, to clone the voice from."""

    path: Path
    sha256: str
    language: str


class SpeechEngine(Engine):
    """Base of the family.

    To add an engine: fill `voices`, implement `synthesize`, and enter the class in `SPEECH_ENGINES`. The first voice of a language is its
    default, unless `suited` says otherwise. Synthesis must be repeatable: the same text, voice and seed give the same samples.

    - One that clones says so in `clones`, has `CLONE` among its voices, and implements `synthesize_as`.
    - One that can be asked for several lines at once says how many in `at_once_wanted`, and is then called from as many threads.
    - One that asks a service raises `ServiceDown` when it has waited as long as is worth while, and marks its speech with the `revision`
      of the model behind it.
    """

    seeded: ClassVar[bool] = False  # whether another seed gives another reading

    @abstractmethod
    def voices(self, language: str) -> list[str]:
        """Voices that speak the language, best first; empty when none does."""

    @abstractmethod
    def languages(self) -> list[str]:
        """Tags of the languages that it speaks."""

    @abstractmethod
    def synthesize(self, text: str, language: str, voice: str, seed: int) -> Speech:
        """Speak one line.

        Raises:
            EngineRefused: it can't speak this text.
            ServiceDown
        """

    def clones(self) -> Literal["nobody", "speakers", "lines"]:
        """Whose voice it takes: nobody's, each speaker's, or each line's own where that is long and clean enough."""
        return "nobody"

    def synthesize_as(self, text: str, language: str, sample: Sample, seed: int) -> Speech:
        """Speak one line in the voice of a recording. Raises as `synthesize` does."""
        raise EngineRefused(f"{self.engine_name}: it can't clone a voice")

    def at_once_wanted(self) -> int:
        """Lines that it wants to be asked for at once."""
        return 1

    def suited(self, language: str, pitch: float | None) -> list[str]:
        """Its voices for a speaker of this median pitch (Hz; None when unknown), best first."""
        return self.voices(language)

    def default_voice(self, language: str, pitch: float | None) -> str:
        """The voice for a lecturer of this median pitch (Hz; None when unknown)."""
        return self.suited(language, pitch)[0]

    def pace(self, language: str, voice: str) -> float:
        """Characters a second at natural speed, by which a translation is given its length."""
        return natural_pace(language, voice)

    def voice_each(self, language: str, pitches: Mapping[str, float | None], settled: Mapping[str, str] = {}) -> dict[str, str]:
        """A voice for each speaker by its pitch, different ones as long as there are any; who comes first chooses first.

        Args:
            settled: voices that speakers have already.
        """
        chosen = dict(settled)
        for speaker, pitch in pitches.items():
            if speaker in chosen:
                continue
            suited = self.suited(language, pitch)
            free = [voice for voice in suited if voice not in chosen.values()]
            chosen[speaker] = (free or suited)[0]
        return chosen

    def engines(self) -> list[SpeechEngine]:
        """The engines that speak, in the order in which they are asked: itself, unless it is a chain."""
        return [self]

    def without(self, down: str, why: str) -> SpeechEngine | None:
        """What is left to speak when the engine `down` can't be used; None when nothing is."""
        return None

    def left_out_because(self) -> list[str]:
        """Why engines before these were left out."""
        return []

    def current_revision(self) -> str:
        """Of the model behind a service, as its speech is marked with; "" for an engine that has its weights here.

        Raises:
            ServiceDown
        """
        return ""

    def mixes(self) -> bool:
        """Whether lines of one speaker may be spoken by different engines of a chain."""
        return False

    def check(self, language: str, voice: str | None) -> None:
        """Refuse what it can't speak, before any work.

        Raises:
            UnsupportedLanguage, BadSetting
        """
        known = self.voices(language)
        if not known:
            raise UnsupportedLanguage(
                f"target language {language} ({name_of(language)}): {self.engine_name} doesn't speak it; "
                f"it speaks {', '.join(self.languages())}"
            )
        if voice is not None and voice not in known:
            raise BadSetting(f"voice {voice}: {self.engine_name} has no such voice for {language}; it has {', '.join(known)}")


def doubts_of(text: str, samples: np.ndarray, sample_rate: int) -> tuple[str, ...]:
    """What is wrong with a clip of this text, by its level and length. Silence at its ends doesn't count.

    >>> doubts_of("A sentence of some length.", np.zeros(48_000, dtype=np.float32), 24_000)
    ('the clip is silent',)
    """
    if not np.isfinite(samples).all():
        return (BROKEN,)
    if not len(samples) or float(np.abs(samples - samples.mean()).max()) < QUIETEST:
        return (SILENT,)
    duration = len(audio.trim_silence(samples, sample_rate)) / sample_rate
    found = []
    too_short = len(text) >= FEWEST_CHARACTERS and len(text) / duration > FASTEST
    if too_short or duration > max(len(text), FEWEST_CHARACTERS) / SLOWEST:
        found.append(f"{duration:.1f} s for {len(text)} characters")
    if (clipped := _clipped(samples)) > MOST_CLIPPED:
        found.append(f"{clipped:.1%} of the samples are clipped")
    if _flatness(samples) > FLATTEST:
        found.append("it is noise")
    return tuple(found)


def _flatness(samples: np.ndarray) -> float:
    """How even the spectrum is, from 0 to 1; Wiener entropy."""
    import scipy.signal

    _, power = scipy.signal.welch(samples, nperseg=min(512, len(samples)))
    power = power[1:] + 1e-20  # without the mean
    return float(np.exp(np.log(power).mean()) / power.mean()) if len(power) else 0.0


def _clipped(samples: np.ndarray) -> float:
    """The share of samples that lie on a flat top: as loud as any, and as their neighbour."""
    level = np.abs(samples)
    peak = float(level.max(initial=0.0))
    flat = (level[1:] > 0.999 * peak) & (np.abs(np.diff(samples)) < 1e-4)
    return float(flat.mean()) if peak > LOUD else 0.0
