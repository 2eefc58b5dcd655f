"""WhisperX: the recogniser of the GPU server. Batched recognition, words aligned by a phoneme network, speakers told apart.

Three models take turns: Whisper recognises the whole lesson, a wav2vec2 network of the language aligns it, pyannote hears who speaks. Each
gives way where the next would not fit beside it (`blocks.residence`).

Where memory runs out recognition goes on with half the batch, down to one; then with a smaller compute type. A warning tells each step, and
the transcript's engine says what was used. The cache key knows of neither. A batch size changes no more than a device does.
The compute type in the key is the one that was asked for, and `may_fall_back`, in it too, says that a smaller one's answer will do.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, PrivateAttr, SecretStr, model_validator

from blocks.recogniser import (
    RATE,
    WINDOW,
    Recogniser,
    Result,
    WhisperRecogniser,
    aligned_by_attention,
    joint,
    logger,
    probability,
    speech_in,
    with_shares,
    words_of,
)
from blocks.residence import residence
from dubbing import devices, hub, weights
from dubbing.audio import chunks_at_silences, read_span
from dubbing.diarisation import Turn, with_speakers
from dubbing.errors import BadSetting, EngineRefused, WeightsUnavailable
from dubbing.hallucinations import Segment
from dubbing.languages import UNSPACED, base_language, name_of
from dubbing.lesson import Word
from dubbing.processors import usable_processors

ComputeType = Literal["float32", "float16", "int8_float16", "int8"]
COMPUTE_TYPES: tuple[ComputeType, ...] = ("float32", "float16", "int8_float16", "int8")  # each takes less memory than the one before

# By language: a bundle of torchaudio, which its publisher serves under a name that never changed, or a model of the hub. Of WhisperX's own
# defaults those whose commit is known; `aligners` adds others.
ALIGNERS = {
    "en": "WAV2VEC2_ASR_BASE_960H",
    "fr": "VOXPOPULI_ASR_BASE_10K_FR",
    "de": "VOXPOPULI_ASR_BASE_10K_DE",
    "es": "VOXPOPULI_ASR_BASE_10K_ES",
    "it": "VOXPOPULI_ASR_BASE_10K_IT",
    "ru": "jonatasgrosman/wav2vec2-large-xlsr-53-russian@2329100508896c6d9b157019803ab5601e6f3406",
    "ja": "jonatasgrosman/wav2vec2-large-xlsr-53-japanese@cf031e020336460d15a417eba710bbc5bb43be9a",
}
DIARISER = "pyannote/speaker-diarization-community-1@3533c8cf8e369892e6b79ff1bf80f7b0286a54ee"

LARGE_BYTES = 3_100_000_000  # large-v3 in 16-bit floats
ALIGNER_BYTES = 1_300_000_000  # a large wav2vec2 in 32-bit floats
DIARISER_BYTES = 500_000_000  # the networks are small, what they compute with is not
HINT_CHARACTERS = 400  # of prompt and hotwords together: they share 448 tokens with the text of a span, and half is the text's


class Rung(NamedTuple):
    """How recognition is tried."""

    batch_size: int
    compute_type: ComputeType


def ladder(batch_size: int, compute_type: ComputeType, may_fall_back: bool, supported: Sequence[str]) -> Iterator[Rung]:
    """Ways to recognise, each with less memory than the one before: half the batch down to one, then smaller compute types.

    >>> [f"{rung.compute_type} x{rung.batch_size}" for rung in ladder(4, "float16", True, ["float16", "int8"])]
    ['float16 x4', 'float16 x2', 'float16 x1', 'int8 x1']

    Args:
        supported: compute types that the device has arithmetic for. What it lacks is left out.
    """
    types = COMPUTE_TYPES[COMPUTE_TYPES.index(compute_type) :] if may_fall_back else (compute_type,)
    usable = [one for one in types if one in supported]
    for number, one in enumerate(usable):
        while number == 0 and batch_size > 1:
            yield Rung(batch_size, one)
            batch_size //= 2
        yield Rung(1 if number else batch_size, one)


class WhisperX(WhisperRecogniser):
    """WhisperX: Whisper in batches, forced alignment by wav2vec2, speakers by pyannote.

    A language without an alignment model gets Whisper's own word times, and a warning says so.
    """

    _block_type_name = "Coursedub WhisperX"
    _block_type_slug = "coursedub-whisperx"
    engine_name: ClassVar[str] = "whisperx"
    for_gpu: ClassVar[bool] = True
    extra: ClassVar[str] = "whisperx"
    packages: ClassVar[tuple[str, ...]] = (
        "whisperx",
        "faster-whisper",
        "ctranslate2",
        "torch",
        "torchaudio",
        "transformers",
        "pyannote-audio",
        *("tokenizers", "onnxruntime", "soxr"),  # its words, Silero's network, how a recording is read
    )
    settings_without_effect: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "device", "threads", "keep_loaded_for", "hugging_face_token"}
    )

    model: str = Field(default="whisper-large-v3", description="Name in the weights catalogue, a folder, or owner/name@commit on the hub.")
    compute_type: ComputeType = Field(default="float16", description="CTranslate2's; the next smaller one where the device lacks it.")
    may_fall_back: bool = Field(
        default=True, description="Whether a smaller compute type will do where memory runs out or the device lacks it."
    )
    batch_size: int = Field(default=16, ge=1, le=256, description="Spans of 30 s recognised at once; halved where memory runs out.")
    beam_size: int = Field(default=5, ge=1, le=20)
    vad: Literal["pyannote", "silero"] = Field(default="pyannote", description="What finds speech before it is recognised.")
    vad_onset: float = Field(default=0.5, gt=0, lt=1, description="Probability of speech that begins a span.")
    vad_offset: float = Field(default=0.363, gt=0, lt=1, description="Probability of speech that ends a span; pyannote's alone.")
    initial_prompt: str = Field(
        default="", max_length=HINT_CHARACTERS, description="Text in the lesson's style, which Whisper goes on from."
    )
    hotwords: tuple[str, ...] = Field(default=(), description="Terms and names of the course, spelt as they should be written.")
    aligned: bool = Field(default=True, description="Whether words are aligned by a network of the language.")
    aligners: dict[str, str] = Field(
        default_factory=dict, description="Other alignment models by language: folders, or owner/name@commit; empty for none."
    )
    diarised: bool = Field(default=False, description="Whether speakers are told apart.")
    diariser: str = Field(default=DIARISER, description="pyannote pipeline: a folder, or owner/name@commit.")
    min_speakers: int | None = Field(default=None, ge=1, description="If it is known.")
    max_speakers: int | None = Field(default=None, ge=1, description="If it is known.")
    hugging_face_token: SecretStr | None = Field(default=None, description="For models with conditions; HF_TOKEN when empty.")
    device: devices.Device = Field(default="auto", description="auto: CUDA, then MPS where a model can use it, then the CPU.")
    threads: int = Field(default=0, ge=0, description="On the CPU; 0: all processors this process may use.")

    _notes: list[str] = PrivateAttr(default_factory=list)  # what a reader of the result should know of how it came about
    _rungs: list[Rung] = PrivateAttr(default_factory=list)  # what is left of the ladder, the one in use first

    @model_validator(mode="after")
    def _check_together(self) -> WhisperX:
        if self.min_speakers and self.max_speakers and self.min_speakers > self.max_speakers:
            raise ValueError(f"min_speakers {self.min_speakers}: must not be greater than max_speakers {self.max_speakers}")
        if len(self.initial_prompt) + len(" ".join(self.hotwords)) > HINT_CHARACTERS:
            raise ValueError(f"initial_prompt and hotwords: together at most {HINT_CHARACTERS} characters")
        return self

    def weights_names(self) -> tuple[str, ...]:
        return (self.model,) if hub.catalogued(self.model) else ()

    def fingerprint(self) -> dict[str, Any]:
        """Models count by what they are, not by where they lie."""
        fingerprint = super().fingerprint()
        settings = fingerprint["settings"]
        settings["model"] = hub.identity(self.model)
        aligners = {language: _identity(model) for language, model in (ALIGNERS | self.aligners).items() if model}
        settings["aligners"] = aligners if self.aligned else {}
        settings["diariser"] = hub.identity(self.diariser) if self.diarised else None
        return fingerprint

    def used(self) -> str:
        notes = list(self._notes)
        if self._rungs and self._rungs[0].compute_type != self.compute_type:
            notes.append(f"{self._rungs[0].compute_type} instead of {self.compute_type}")
        return f"{self.engine_name} ({', '.join(notes)})" if notes else self.engine_name

    @property
    def tells_speakers_apart(self) -> bool:
        return self.diarised

    def hinted(self, words: Iterable[str]) -> Recogniser:
        """With these words after its own hotwords, as many as it has room for."""
        hotwords = list(self.hotwords)
        for word in words:
            if len(self.initial_prompt) + len(" ".join([*hotwords, word])) <= HINT_CHARACTERS and word not in hotwords:
                hotwords.append(word)
        return self if len(hotwords) == len(self.hotwords) else self.model_copy(update={"hotwords": tuple(hotwords)})

    # Recognition

    def transcribe(self, recording: Path, language: str, progress: Callable[[float], None]) -> list[Word]:
        spoken = base_language(language)
        self._left_out.clear()
        self._rungs.clear()
        self._notes.clear()
        aligner = self._aligner(spoken)
        self._have_models(aligner)
        devices.set_torch_threads(self.threads)  # of the aligner and of pyannote; Whisper itself is told when it is loaded
        parts = 1.0 / (1 + bool(aligner) + self.diarised)  # of the work, about
        segments: list[_Recognised] = []
        for start, samples, share in with_shares(recording):
            found = self._recognised(samples, start, spoken)
            speech = [(start + begin, start + end) for begin, end in speech_in(samples)]
            heard = [Segment(one.tokens, one.start, one.end, one.log_probability, joint(spoken)) for one in found]
            for one, positions in zip(found, self._guarded(heard, speech), strict=True):
                if positions:
                    segments.append(one._replace(tokens=[one.tokens[position] for position in positions]))
            progress(parts * share[1])
        words = self._with_times(recording, segments, spoken, aligner, lambda share: progress(parts * (1 + bool(aligner) * share)))
        if self.diarised and words:
            words = with_speakers(words, self._turns(recording, lambda share: progress(1 - parts * (1 - share))))
        progress(1.0)
        return words

    def _recognised(self, samples: np.ndarray, start: float, language: str) -> list[_Recognised]:
        """Spans of up to 30 s with their text. Times are the lesson's."""
        result = self._down_the_ladder(
            lambda pipeline, batch: pipeline.transcribe(samples, batch_size=batch, language=language, chunk_size=int(WINDOW))
        )
        return [
            _Recognised(_tokens(segment["text"], language), start + segment["start"], start + segment["end"], float(segment["avg_logprob"]))
            for segment in result["segments"]
        ]

    def _by_whisper(self, work: Callable[[Any], Result]) -> Result:
        return self._down_the_ladder(lambda pipeline, batch: work(pipeline.model))

    def _down_the_ladder(self, attempt: Callable[[Any, int], Result]) -> Result:
        """What comes of recognising with as much memory as there is. The next attempt begins on the rung where this one ended."""
        self.require_packages()
        device = self._whisper_device()
        self._rungs = self._rungs or self._ladder(device)
        ran_out = False
        while True:
            rung = self._rungs[0]
            try:
                with self._pipeline(rung.compute_type, device) as pipeline:
                    return attempt(pipeline, rung.batch_size)
            except Exception as error:
                ran_out = devices.is_out_of_memory(error, again=ran_out)
                if not ran_out or len(self._rungs) == 1:
                    raise
            # Outside of the handler, so that the failure's frames, and all they hold, are gone.
            if not residence.make_room(device, but=f"{self.engine_name}, {rung.compute_type}"):
                self._rungs.pop(0)
                below = self._rungs[0]
                logger.warning(
                    "whisperx: out of memory with %d spans at once in %s; going on with %d in %s",
                    *(rung.batch_size, rung.compute_type, below.batch_size, below.compute_type),
                )
                if below.compute_type != rung.compute_type:
                    residence.make_room(device)

    def _ladder(self, device: str) -> list[Rung]:
        import ctranslate2

        supported = sorted(ctranslate2.get_supported_compute_types(device))
        rungs = list(ladder(self.batch_size, self.compute_type, self.may_fall_back, supported))
        if not rungs:
            there = ", ".join(supported)
            raise BadSetting(f"compute type {self.compute_type}: this machine's {device} has no arithmetic for it; it has {there}")
        if rungs[0].compute_type != self.compute_type:
            logger.warning("whisperx: %s has no arithmetic for %s; going on with %s", device, self.compute_type, rungs[0].compute_type)
        return rungs

    def _pipeline(self, compute_type: str, device: str) -> AbstractContextManager[Any]:
        def load() -> Any:
            asr = _imported("whisperx.asr")
            vad = {"vad_onset": self.vad_onset, "vad_offset": self.vad_offset, "chunk_size": int(WINDOW)}
            hints = {"initial_prompt": self.initial_prompt or None, "hotwords": ", ".join(self.hotwords) or None}
            with _quiet():
                return asr.load_model(
                    str(hub.folder_of(self.model, self._token())),
                    device,
                    compute_type=compute_type,
                    asr_options={"beam_size": self.beam_size, **hints},
                    vad_model=_silero(vad) if self.vad == "silero" else None,
                    vad_options=vad,
                    threads=self.threads or usable_processors(),
                )

        of = ("model", "beam_size", "initial_prompt", "hotwords", "vad", "vad_onset", "vad_offset", "threads")
        size = weights.find(self.model).size if hub.catalogued(self.model) else LARGE_BYTES
        return self.loaded(load, of=of, device=device, size=size // (1 if compute_type == "float16" else 2), part=compute_type)

    # Alignment

    def align(self, samples: np.ndarray, text: str, language: str) -> list[Word]:
        aligner = self._aligner(base_language(language))
        if aligner:
            segment = _Recognised(_tokens(text, language), 0.0, len(samples) / RATE, 0.0)
            [words] = self._by_network([segment], lambda _: samples, base_language(language), aligner, lambda share: None)
            if words:
                return words
        return super().align(samples, text, language)

    def _aligner(self, language: str) -> str | None:
        return (ALIGNERS | self.aligners).get(language) or None if self.aligned else None

    def _with_times(
        self, recording: Path, segments: Sequence[_Recognised], language: str, aligner: str | None, progress: Callable[[float], None]
    ) -> list[Word]:
        """The words of all segments, in order."""

        def sound_of(segment: _Recognised) -> np.ndarray:
            return read_span(recording, segment.start, segment.end, RATE)

        words: list[list[Word]] = [[] for _ in segments]
        if aligner:
            words = self._by_network(segments, sound_of, language, aligner, progress)
        elif self.aligned and segments:
            logger.warning("whisperx: no alignment model for %s; the recogniser's own word times are used", name_of(language))
            self._notes.append(f"no alignment model for {name_of(language)}, the recogniser's own word times")
        left = [number for number, found in enumerate(words) if not found]
        if aligner and left:
            logger.warning("whisperx: %d of %d spans could not be aligned; the recogniser's own word times are used", len(left), len(words))
        for number in left:
            words[number] = self._by_attention(sound_of(segments[number]), segments[number], language)
        return [word for found in words for word in found]

    def _by_attention(self, samples: np.ndarray, segment: _Recognised, language: str) -> list[Word]:
        text = joint(language).join(segment.tokens)
        found = self._by_whisper(lambda model: aligned_by_attention(model, samples, text, language))
        pieces = [
            SimpleNamespace(word=joint(language) + one.text, start=one.start, end=one.end, probability=one.confidence) for one in found
        ]
        return list(words_of(SimpleNamespace(words=pieces), segment.start))

    def _by_network(
        self,
        segments: Sequence[_Recognised],
        sound_of: Callable[[_Recognised], np.ndarray],
        language: str,
        aligner: str,
        progress: Callable[[float], None],
    ) -> list[list[Word]]:
        """The words of each segment; none where it could not be aligned."""
        self.require_packages()
        device = devices.for_torch(self.device)
        devices.set_torch_threads(self.threads)
        words: list[list[Word]] = []
        while len(words) < len(segments):
            try:
                with self._align_model(aligner, language, device) as (align, model, metadata):
                    for segment in segments[len(words) :]:
                        span = {"text": joint(language).join(segment.tokens), "start": 0.0, "end": segment.end - segment.start}
                        found = align([span], model, metadata, sound_of(segment), device)["word_segments"]
                        words.append(_placed(found, segment, language))
                        progress(len(words) / len(segments))
            except Exception as error:
                if not devices.is_out_of_memory(error) or device == "cpu":
                    raise
            if len(words) < len(segments) and not residence.make_room(
                device, but=f"{self.engine_name}, {aligner} for {base_language(language)}"
            ):
                logger.warning("whisperx: out of memory while aligning on %s; going on on the CPU", device)
                residence.make_room(device)
                device = "cpu"
        return words

    def _align_model(self, aligner: str, language: str, device: str) -> AbstractContextManager[Any]:
        def load() -> tuple[Any, Any, Any]:
            alignment = _imported("whisperx.alignment")
            # It cuts text into sentences by data that it would download. Ours is cut by `dubbing.segmentation`: a span is one piece.
            alignment.nltk_load = lambda address: SimpleNamespace(span_tokenize=lambda text: [(0, len(text))])
            name = aligner if _is_bundle(aligner) else str(hub.folder_of(aligner, self._token()))
            try:
                with _quiet():
                    model, metadata = alignment.load_align_model("zh" if language in UNSPACED else language, device, model_name=name)
            except OSError as error:  # of urllib: a bundle that is not here and can't be had
                raise WeightsUnavailable(f"alignment model {aligner}: it isn't on this machine and can't be fetched ({error})") from error
            except ValueError as error:
                raise EngineRefused(f"alignment model {aligner}: no wav2vec2 network that can be loaded ({error})") from error
            return alignment.align, model, metadata

        # One network may serve several languages, and what it is loaded with differs.
        return self.loaded(load, of=(), device=device, size=ALIGNER_BYTES, part=f"{aligner} for {base_language(language)}")

    # Speakers

    def _turns(self, recording: Path, progress: Callable[[float], None]) -> list[Turn]:
        device = devices.for_torch(self.device)
        samples = np.concatenate([chunk for _, chunk in chunks_at_silences(recording, RATE, 10 * WINDOW)])
        batch_size = 0  # the pipeline's own
        while True:
            try:
                with self._diariser(device) as pipeline:
                    batch_size = batch_size or max(pipeline.model.segmentation_batch_size, pipeline.model.embedding_batch_size)
                    pipeline.model.segmentation_batch_size = min(pipeline.model.segmentation_batch_size, batch_size)
                    pipeline.model.embedding_batch_size = min(pipeline.model.embedding_batch_size, batch_size)
                    table = pipeline(
                        samples,
                        min_speakers=self.min_speakers,
                        max_speakers=self.max_speakers,
                        progress_callback=lambda percent: progress(percent / 100),
                    )
                    return [Turn(float(row.start), float(row.end), str(row.speaker)) for row in table.itertuples()]
            except Exception as error:
                if not devices.is_out_of_memory(error) or device == "cpu":
                    raise
            if not residence.make_room(device, but=f"{self.engine_name}, speakers"):
                if batch_size > 1:
                    logger.warning("whisperx: out of memory with speakers in batches of %d; going on with %d", batch_size, batch_size // 2)
                    batch_size //= 2
                else:
                    logger.warning("whisperx: out of memory while hearing speakers on %s; going on on the CPU", device)
                    residence.make_room(device)
                    device = "cpu"

    def _diariser(self, device: str) -> AbstractContextManager[Any]:
        def load() -> Any:
            diarize = _imported("whisperx.diarize")
            folder = hub.folder_of(self.diariser, self._token())
            try:
                with _quiet():
                    return diarize.DiarizationPipeline(model_name=str(folder), token=self._token(), device=device)
            except (ValueError, KeyError, AttributeError, TypeError, FileNotFoundError) as error:
                raise EngineRefused(f"diariser {self.diariser}: no pipeline of pyannote that can be loaded ({error})") from error

        return self.loaded(load, of=("diariser",), device=device, size=DIARISER_BYTES, part="speakers")

    # Models

    def _token(self) -> str | None:
        return self.hugging_face_token.get_secret_value() if self.hugging_face_token else None

    def _whisper_device(self) -> str:
        return devices.for_ctranslate2("auto" if self.device == "mps" else self.device)

    def _have_models(self, aligner: str | None) -> None:
        """Refuse before any work what would fail after the first of it: packages, devices, models that can't be had."""
        self.require_packages()
        devices.for_torch(self.device)
        hub.folder_of(self.model, self._token())
        if aligner and not _is_bundle(aligner):
            hub.folder_of(aligner, self._token())
        elif aligner and weights.is_offline() and not _bundle_file(aligner).is_file():
            raise WeightsUnavailable(f"alignment model {aligner}: it isn't on this machine, and HF_HUB_OFFLINE forbids fetching it")
        if self.diarised:
            hub.folder_of(self.diariser, self._token())


class _Recognised(NamedTuple):
    """A span with its text, at the lesson's time."""

    tokens: list[str]
    start: float
    end: float
    log_probability: float


def _tokens(text: str, language: str) -> list[str]:
    return [c for c in text if not c.isspace()] if base_language(language) in UNSPACED else text.split()


def _placed(found: Sequence[Mapping[str, Any]], segment: _Recognised, language: str) -> list[Word]:
    """Aligned words at the lesson's time; none if not one of them has a time. A word without one begins where the one before it ends.

    Their confidence is the recogniser's: the alignment's score says how well a word fits, not whether it was said.
    """
    if not any("start" in word for word in found):
        return []
    length, sure = segment.end - segment.start, probability(segment.log_probability)
    pieces, at = [], 0.0
    for word in found:
        start = min(max(float(word.get("start", at)), 0.0), length)
        at = min(max(float(word.get("end", start)), start), length)
        pieces.append(SimpleNamespace(word=joint(language) + str(word["word"]), start=start, end=at, probability=sure))
    return list(words_of(SimpleNamespace(words=pieces), segment.start))


def _identity(aligner: str) -> str:
    return aligner if _is_bundle(aligner) else hub.identity(aligner)


def _is_bundle(aligner: str) -> bool:
    """Whether it is a name of torchaudio's, like WAV2VEC2_ASR_BASE_960H."""
    return "_ASR_" in aligner and aligner == aligner.upper() and "/" not in aligner


def _bundle_file(aligner: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / getattr(_imported("torchaudio.pipelines"), aligner)._path


def _imported(module: str) -> Any:
    """A module of the heavy packages, without what they say of themselves when they are loaded."""
    for name in ("whisperx", "pyannote", "lightning", "lightning_fabric", "pytorch_lightning", "speechbrain"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("whisperx").addHandler(logging.NullHandler())  # else it writes to standard output
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


@contextmanager
def _quiet() -> Iterator[None]:
    """Loaders print to standard output, where our own output may be read by a program."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _silero(options: Mapping[str, Any]) -> Any:
    """WhisperX's detector of this name loads code from a repository; this is the same network, as faster-whisper carries it."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    vads = _imported("whisperx.vads")
    span = _imported("whisperx.diarize").Segment

    class Silero(vads.Vad):  # type: ignore[name-defined]
        preprocess_audio = staticmethod(vads.Silero.preprocess_audio)
        merge_chunks = staticmethod(vads.Silero.merge_chunks)

        def __call__(self, audio: Mapping[str, Any], **_: Any) -> list[Any]:
            settings = VadOptions(threshold=options["vad_onset"], max_speech_duration_s=options["chunk_size"])
            found = get_speech_timestamps(np.asarray(audio["waveform"]), settings)
            return [span(one["start"] / RATE, one["end"] / RATE, "UNKNOWN") for one in found]

    return Silero(options["vad_onset"])
