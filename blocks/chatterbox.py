"""Chatterbox, which clones voices, as a service beside us (`deployments/gpu_server/chatterbox`): the client.

What a service does on an ordinary day is part of this: it sends away those for whom there is no place (503 with Retry-After), its model is
still loading, it was started again and has forgotten the recordings it was sent. All that is waited for, up to `patience`. What doesn't
pass is `ServiceDown`, and what it will never say is `EngineRefused`.
"""

from __future__ import annotations

import base64
import binascii
import io
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import Field, PrivateAttr, field_validator

from blocks.answers import HEADERS, NONSENSE, bounds, retry_after
from blocks.speech_engine import CLONE, NO_SPEECH, Sample, Speech, SpeechEngine, doubts_of
from dubbing.errors import BadSetting, EngineRefused, ServiceDown
from dubbing.keys import digest
from dubbing.languages import base_language
from dubbing.services import CHATTERBOX, plain_address

if TYPE_CHECKING:
    import httpx

MODELS_OWN = "default"  # the voice that the model has without a recording
TRIES = 4  # of a request that met a fault in the connection, or an answer that makes no sense
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds between them; each is about twice the one before
HEALTH_PAUSE = 2.0  # seconds between two looks at a model that is being loaded
HEALTH_TIMEOUT = 30.0  # seconds: it answers at once, whatever the model does
_SEEDS = 2**32
_NEXT_SEED = 1_000_003  # to the seed of the next try: far from the seeds of the pieces of this one, which count up

# Those of the multilingual model. `GET /api/languages` tells which of them a service lacks something for; a plan must do without asking.
LANGUAGES = tuple("ar da de el en es fi fr he hi it ja ko ms nl no pl pt ru sv sw tr zh".split())
_SAME_LANGUAGE = {"nb": "no", "nn": "no", "iw": "he", "cmn": "zh"}  # other codes that the service knows

T = TypeVar("T")


class _Later(Exception):
    """It may work if asked again."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds  # that it is to be waited for, 0 if it doesn't say how long; None: few tries are enough to see


class _Fault(NamedTuple):
    status: int
    code: str
    message: str


class _Take(NamedTuple):
    samples: np.ndarray
    sample_rate: int
    cut: bool


class Chatterbox(SpeechEngine):
    """Chatterbox multilingual behind HTTP: 23 languages, in the lecturer's own voice."""

    _block_type_name = "Coursedub Chatterbox"
    _block_type_slug = "coursedub-chatterbox"
    engine_name: ClassVar[str] = "chatterbox"
    for_gpu: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    settings_without_effect: ClassVar[frozenset[str]] = frozenset({"address", "connect_timeout", "timeout", "patience", "at_once"})

    address: str = Field(
        default_factory=lambda: os.environ.get("COURSEDUB_CHATTERBOX") or CHATTERBOX,
        validate_default=True,
        description="Of the service. COURSEDUB_CHATTERBOX when it is not given.",
    )
    clone: Literal[1, 2, 3] = Field(
        default=2,
        description="Whose voice: 1 nobody's, 2 each speaker's, from one part of the lesson, 3 each line's own, or its speaker's where the "
        "line is short or noisy.",
    )
    voice: str = Field(default="", max_length=200, description="A voice of the service for who isn't cloned; empty: the model's own.")
    exaggeration: float = Field(default=0.5, ge=0, le=2, description="Of the emotion; 0.5 is as it is.")
    cfg_weight: float = Field(default=0.4, ge=0, le=1, description="How closely the pace and accent of the recording are followed.")
    cfg_weight_abroad: float = Field(
        default=0.0, ge=0, le=1, description="The same where the recording is in another language: 0 leaves its accent behind."
    )
    temperature: float = Field(default=0.8, ge=0.05, le=5, description="How freely it reads.")
    takes: int = Field(default=3, ge=1, le=20, description="Readings of a line, each with another seed, until one sounds right.")
    revision: str = Field(
        default="", description="Of the model, as the service's clips are marked with; empty: whichever answers. Another one is refused."
    )
    connect_timeout: float = Field(default=5.0, gt=0, description="Seconds until a connection must stand.")
    timeout: float = Field(
        default=300.0, gt=0, description="Seconds that a reading of a line may take, its waiting in the service included."
    )
    patience: float = Field(default=600.0, ge=0, description="Seconds that a service which is busy or loading is waited for.")
    at_once: int = Field(default=4, ge=1, le=64, description="Lines asked for at once: the model is never idle between two.")

    _http: Any = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _sent: set[str] = PrivateAttr(default_factory=set)  # SHA-256 of the recordings that this service has
    _revision: str | None = PrivateAttr(default=None)  # of the model that answers; None: not asked yet

    @field_validator("address")
    @classmethod
    def _checked_address(cls, address: str) -> str:
        return plain_address("address (or COURSEDUB_CHATTERBOX)", address)

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
        self._http, self._revision = None, None
        self._sent.clear()

    def languages(self) -> list[str]:
        return list(LANGUAGES)

    def voices(self, language: str) -> list[str]:
        base = base_language(language)
        if _SAME_LANGUAGE.get(base, base) not in LANGUAGES:
            return []
        own = [self.voice] if self.voice and self.voice != MODELS_OWN else []
        return [*([CLONE] if self.clone != 1 else []), *own, MODELS_OWN]

    def suited(self, language: str, pitch: float | None) -> list[str]:
        return [voice for voice in self.voices(language) if voice != CLONE]

    def clones(self) -> Literal["nobody", "speakers", "lines"]:
        kinds: dict[int, Literal["nobody", "speakers", "lines"]] = {1: "nobody", 2: "speakers", 3: "lines"}
        return kinds[self.clone]

    def at_once_wanted(self) -> int:
        return self.at_once

    def synthesize(self, text: str, language: str, voice: str, seed: int) -> Speech:
        named = {} if voice == MODELS_OWN else {"voice": voice}
        return self._best_take(text, language, seed, {"cfg_weight": self.cfg_weight, **named}, None)

    def synthesize_as(self, text: str, language: str, sample: Sample, seed: int) -> Speech:
        abroad = base_language(sample.language) != base_language(language)
        settings = {"cfg_weight": self.cfg_weight_abroad if abroad else self.cfg_weight, "reference": sample.sha256}
        return self._best_take(text, language, seed, settings, sample)

    def _best_take(self, text: str, language: str, seed: int, settings: dict[str, Any], sample: Sample | None) -> Speech:
        """The first reading that nothing is wrong with, else the one with the least."""
        revision = self.current_revision()
        request = {
            "text": text,
            "language": language,
            "exaggeration": self.exaggeration,
            "temperature": self.temperature,
            **settings,
        }
        best: Speech | None = None
        refusal = None
        for number in range(self.takes):
            used = (seed + number * _NEXT_SEED) % _SEEDS
            try:
                take = self._take({**request, "seed": used}, sample)
            except _NoSpeech as error:
                refusal = str(error)
                continue
            doubts = doubts_of(text, take.samples, take.sample_rate)
            if none := [doubt for doubt in doubts if doubt in NO_SPEECH]:
                refusal = none[0]
                continue
            if take.cut:
                doubts = ("cut off at the 40 s that the model gives", *doubts)
            if best is None or len(doubts) < len(best.doubts):
                best = Speech(take.samples, take.sample_rate, used, doubts, revision)
            if not doubts:
                break
        if best is None:
            raise EngineRefused(f"chatterbox: {refusal}, {self.takes} times")
        return best

    def _take(self, request: dict[str, Any], sample: Sample | None) -> _Take:
        if sample is not None:
            self._send(sample)
        for _ in range(TRIES):
            answer = self._answer("POST", "/api/tts/generate", _take_in, timeout=self.timeout, json=request)
            if isinstance(answer, _Take):
                return answer
            if answer.code != "unknown_reference" or sample is None:
                raise self._refused(answer)
            with self._lock:
                self._sent.discard(sample.sha256)  # it was started again, or was sent many others since
            self._send(sample)
        raise ServiceDown("chatterbox", f"{self.address} forgets recordings as soon as they are sent")

    def _send(self, sample: Sample) -> None:
        """Let the service have a recording, unless it has it: one line sends it, the others wait."""
        with self._lock:
            if sample.sha256 not in self._sent:
                content = sample.path.read_bytes()
                answer = self._answer(
                    "PUT", f"/api/references/{sample.sha256}", lambda body: body["reference"], timeout=self.timeout, content=content
                )
                if isinstance(answer, _Fault):
                    raise self._refused(answer)
                self._sent.add(sample.sha256)

    def current_revision(self) -> str:
        """Asked for once.

        Raises:
            BadSetting: it isn't the one that is wanted.
            ServiceDown
        """
        with self._lock:
            if self._revision is None:
                answer = self._answer("GET", "/health", _revision_in, timeout=HEALTH_TIMEOUT)
                if isinstance(answer, _Fault):
                    raise self._refused(answer)
                if self.revision and answer != self.revision:
                    raise BadSetting(
                        f"chatterbox: revision {self.revision} is asked for, and the service's model is {answer}: set revision to that to "
                        "have all lines spoken by it"
                    )
                self._revision = answer
            return self._revision

    def _refused(self, fault: _Fault) -> Exception:
        """What a fault that waiting won't cure means."""
        if fault.code == "unknown_voice":
            return BadSetting(f"chatterbox: {fault.message}")
        if fault.code == "no_speech":
            return _NoSpeech(fault.message)
        if fault.status == 503:
            return ServiceDown("chatterbox", f"{self.address}: {fault.message}")
        if fault.code in ("", "not_found", "method_not_allowed"):
            return ServiceDown("chatterbox", f"what answers at {self.address} is not the service (status {fault.status})")
        return EngineRefused(f"chatterbox: {fault.message}")

    def _answer(self, method: str, path: str, read: Callable[[Any], T], **request: Any) -> T | _Fault:
        """What `read` makes of the service's answer, or a fault that waiting won't cure.

        Raises:
            ServiceDown
        """
        import httpx

        if self._http is None:
            # A service of our own: whatever the environment says of proxies, none stands between.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.at_once)
            self._http = httpx.Client(base_url=self.address, limits=limits, trust_env=False, headers=HEADERS, event_hooks=bounds())
        request["timeout"] = httpx.Timeout(request["timeout"], connect=self.connect_timeout, pool=None)
        until = time.monotonic() + self.patience
        pauses, sent_away = _pauses(TRIES - 1), _pauses()
        while True:
            try:
                return _read(self._http.request(method, path, **request), read)
            except httpx.ConnectTimeout:
                later = _Later(f"nobody answers at {self.address}")
            except httpx.TimeoutException:
                raise ServiceDown("chatterbox", f"no answer from {self.address} in {request['timeout'].read:g} s") from None
            except httpx.ConnectError:
                later = _Later(f"nobody answers at {self.address}")
            except httpx.DecodingError as wrong:
                later = _senseless(wrong)
            except httpx.TransportError:
                self._revision = None  # it may come back as another
                later = _Later(f"the connection to {self.address} breaks off")
            except _Later as error:
                later = error
            if later.seconds is None:
                pause = next(pauses, None)
                if pause is None:
                    raise ServiceDown("chatterbox", str(later))
            else:
                # Longer than it says, so that those who were sent away don't come back at once; never without a pause.
                pause = max(later.seconds, FIRST_PAUSE) * random.uniform(1.0, 1.25) if later.seconds else next(sent_away)
                if time.monotonic() + pause > until:
                    raise ServiceDown("chatterbox", f"{self.address}: {later}")
            time.sleep(pause)


class _NoSpeech(Exception):
    """The model gave no sound; another seed may."""


def _pauses(most: int | None = None) -> Iterator[float]:
    for number in itertools.count() if most is None else range(most):
        yield min(FIRST_PAUSE * 2 ** min(number, 10), LONGEST_PAUSE) * random.uniform(0.75, 1.25)


def _read(answer: httpx.Response, read: Callable[[Any], T]) -> T | _Fault:
    """
    Raises:
        _Later
    """
    if answer.is_success:
        try:
            return read(answer.json())
        except NONSENSE as wrong:
            raise _senseless(wrong) from wrong
    try:
        error = answer.json()["error"]
        fault = _Fault(answer.status_code, str(error["code"]), " ".join(str(error["message"]).split())[:300])
    except NONSENSE:
        fault = _Fault(answer.status_code, "", f"status {answer.status_code}")
    if answer.status_code in (429, 503) and fault.code != "model_failed":  # which lasts until it is started again
        raise _Later(_without_numbers(fault), retry_after(answer.headers))
    if answer.status_code >= 500 and answer.status_code != 503 and fault.code != "no_speech":
        raise _Later(fault.message)
    return fault


def _senseless(wrong: Exception) -> _Later:
    return _Later(f"an answer that makes no sense ({type(wrong).__name__})")


def _without_numbers(fault: _Fault) -> str:
    """Why it sends away: the same words each time, since they go into a key."""
    return {"busy": "busy", "model_loading": "the model is still being loaded", "out_of_memory": "the GPU's memory is full"}.get(
        fault.code, fault.message
    )


def _take_in(body: Any) -> _Take:
    """The sound in an answer; what can't be one raises."""
    import soundfile

    try:
        data = base64.b64decode(body["audio_base64"], validate=True)
        samples, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32")
    except (binascii.Error, soundfile.SoundFileError, RuntimeError) as error:
        raise ValueError("no sound") from error
    if samples.ndim != 1 or sample_rate != body["sample_rate"] or not len(samples) or not np.isfinite(samples).all():
        raise ValueError("not the sound that was promised")
    return _Take(samples, int(sample_rate), bool(body.get("cut")))


def _revision_in(health: Any) -> str:
    """The model's revision in what `/health` says.

    Raises:
        _Later: it is loading.
        ServiceDown: it has failed.
    """
    match health["status"]:
        case "loading":
            raise _Later("the model is still being loaded", seconds=HEALTH_PAUSE)
        case "failed":
            raise ServiceDown("chatterbox", f"its model can't be used: {' '.join(str(health['reason']).split())[:300]}")
    return digest(health["fingerprint"])[:12]
