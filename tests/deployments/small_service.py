"""A small model for the Chatterbox service, tones instead of speech, and what its tests send and read."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx
import numpy as np
import soundfile
from chatterbox_service.model import Clip, Language, Manner, SpeechModel, Stopped
from chatterbox_service.references import Reference, References
from chatterbox_service.speaking import VoiceCache

LETTER = 0.01  # seconds of sound a letter makes
PATIENCE = 600.0  # seconds until a test gives up on what must happen


class Spoken(NamedTuple):
    text: str
    language: str
    voice: Any
    manner: Manner
    seed: int


class ToneModel(SpeechModel):
    """Speaks tones whose pitch follows the seed."""

    device, sample_rate, longest, has_own_voice = "cpu", 24_000, 40.0, True

    def __init__(self) -> None:
        self.start_afresh()

    def start_afresh(self) -> None:
        self.has_own_voice = True
        self.spoken: list[Spoken] = []
        self.made: list[tuple[str, float]] = []  # conditionals
        self.at_once = self.most_at_once = 0
        self.stopped = 0
        self.reaches = 10**9  # letters that it can say at once
        self.fault: BaseException | None = None  # instead of speech
        self.faults: dict[int, BaseException] = {}  # the same for single seeds
        self.letter = LETTER
        self.length: Callable[[int], float | None] = lambda seed: None  # seconds that it takes by seed, whatever the text is
        self.level: Callable[[int], float] = lambda seed: 0.5
        self.square = False  # whether the tone is one whose every sample is a peak
        self.version = "1"
        self.open = threading.Event()  # closed, it goes on speaking and never ends
        self.open.set()
        self.started = threading.Semaphore(0)  # one for each piece begun

    def languages(self) -> Mapping[str, Language]:
        return {
            "en": Language("English"),
            "no": Language("Norwegian"),
            "ru": Language("Russian", "stress is guessed"),
            "zh": Language("Chinese"),
        }

    def fingerprint(self) -> dict[str, Any]:
        return {"model": "tones"} if self.version == "1" else {"model": "tones", "version": self.version}

    def conditionals(self, reference: Reference, exaggeration: float) -> Any:
        self.made.append((reference.name, exaggeration))
        return reference.name

    def speak(self, text: str, language: str, conditionals: Any, manner: Manner, seed: int, stop: Callable[[], bool]) -> Clip:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.spoken.append(Spoken(text, language, conditionals, manner, seed))
        self.started.release()
        try:
            while not self.open.wait(0.01):
                if stop():
                    self.stopped += 1
                    raise Stopped
            if fault := self.fault or self.faults.get(seed):
                raise fault
        finally:
            self.at_once -= 1
        length = min(len(text), self.reaches)
        time = np.arange(round((self.length(seed) or length * self.letter) * self.sample_rate)) / self.sample_rate
        tone = np.sin(2 * np.pi * (100 + seed % 400) * time)
        return Clip((self.level(seed) * (np.sign(tone) if self.square else tone)).astype(np.float32), len(text) <= self.reaches)

    def memory_used(self) -> float:
        return 1.25

    def wait_until_started(self) -> None:
        assert self.started.acquire(timeout=PATIENCE)


class Running(NamedTuple):
    """A service on a port of this machine."""

    model: ToneModel
    address: str
    client: httpx.Client
    service: Any

    def start_afresh(self) -> None:
        self.model.start_afresh()
        self.service.references = References(64, self.service.settings.max_reference_bytes)
        self.service.known_voices = VoiceCache(32)
        self.service.loaded.failure, self.service.broken = None, False

    def generate(self, text: str = "Hello, this is a line.", **more: Any) -> httpx.Response:
        return self.client.post("/api/tts/generate", json={"text": text, **more})


def until(happened: Callable[[], bool]) -> None:
    """Wait for what must happen."""
    waiting = threading.Event()
    for _ in range(round(PATIENCE / 0.02)):
        if happened():
            return
        waiting.wait(0.02)
    raise AssertionError("it did not happen")


def recording(
    seconds: float = 5.0,
    level: float = 0.2,
    sample_rate: int = 24_000,
    channels: int = 1,
    silence: float = 0.0,
    pitch: float = 150.0,
    kind: str = "WAV",
    subtype: str | None = None,
) -> bytes:
    """A file of a hum between two silences."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    hum = level * np.sin(2 * np.pi * pitch * time)
    gap = np.zeros(round(silence * sample_rate))
    samples = np.concatenate([gap, hum, gap]).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, np.repeat(samples[:, None], channels, axis=1), sample_rate, format=kind, subtype=subtype)
    return file.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sound_of(answer: httpx.Response | dict[str, Any]) -> tuple[np.ndarray, int]:
    body = answer if isinstance(answer, dict) else answer.json()
    samples, sample_rate = soundfile.read(io.BytesIO(base64.b64decode(body["audio_base64"])), dtype="float32")
    return samples, sample_rate


def fault_of(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code, message. Every fault has this form and no other."""
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}, body
    assert "\n" not in body["error"]["message"]
    return answer.status_code, body["error"]["code"], body["error"]["message"]


class Background:
    """A request under way in another thread."""

    def __init__(self, ask: Callable[[], httpx.Response]) -> None:
        self._ask = ask
        self.result: httpx.Response
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.result = self._ask()

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()
