"""WhisperX around its models: memory that runs out, models that give way, what is left out, keys. The package is played here, with the
errors that the real ones raise; its own code runs in `tests/engines`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError

from blocks import whisperx
from blocks.residence import residence
from blocks.transcription import FasterWhisper
from blocks.whisperx import ALIGNERS, COMPUTE_TYPES, HINT_CHARACTERS, Rung, WhisperX, ladder
from dubbing import audio
from dubbing.errors import BadSetting
from dubbing.keys import digest
from dubbing.lesson import Word
from dubbing.media import SAMPLE_RATE

CUDA = "CUDA failed with error out of memory"  # CTranslate2's
CUDA_AGAIN = "parallel_for failed: cudaErrorInvalidDevice: invalid device ordinal"  # and what it said at the next try, on an H200
TORCH = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.06 GiB is free."


class Played:
    """The package whisperx on a GPU whose memory a test decides on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads: list[str] = []
        self.threads: list[int] = []  # that torch was told to take
        self.tried: list[tuple[str, int]] = []
        self.aligned_on: list[str] = []
        self.room = lambda compute_type, batch: True
        self.says = lambda batch: CUDA  # where there is none
        self.loading_room = lambda compute_type: True
        self.align_room = lambda device: True
        self.text = "Свет проходит через каплю воды."
        self.log_probability = -0.2
        self.turns = [(0.0, 2.0, "SPEAKER_01"), (2.0, 10.0, "SPEAKER_00")]
        self.attention: list[str] = []
        self.load_options: dict[str, Any] = {}
        modules = {
            "whisperx": {},
            "whisperx.asr": {"load_model": self.load_model},
            "whisperx.alignment": {"load_align_model": self.load_align_model, "align": self.align},
            "whisperx.diarize": {"DiarizationPipeline": self.diariser},
        }
        for name, contents in modules.items():
            module = ModuleType(name)
            module.__dict__.update(contents)
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(WhisperX, "require_packages", lambda self: None)
        monkeypatch.setattr(whisperx.devices, "for_ctranslate2", lambda wanted: "cuda")
        monkeypatch.setattr(whisperx.devices, "for_torch", lambda wanted: "cuda")
        monkeypatch.setattr(whisperx.devices, "set_torch_threads", self.threads.append)
        monkeypatch.setattr("ctranslate2.get_supported_compute_types", lambda device: {"float32", "float16", "int8_float16", "int8"})
        monkeypatch.setattr(whisperx.hub, "folder_of", lambda model, token=None: Path("/models") / model)
        monkeypatch.setattr(whisperx, "aligned_by_attention", self.by_attention)
        monkeypatch.setattr(whisperx, "speech_in", lambda samples: [(0.0, len(samples) / 16_000)])
        monkeypatch.setattr(whisperx, "_bundle_file", lambda aligner: Path("/nowhere"))

    def load_model(self, folder: str, device: str, **options: Any) -> Any:
        compute_type = options["compute_type"]
        self.loads.append(compute_type)
        self.load_options = options
        if not self.loading_room(compute_type):
            raise RuntimeError(CUDA)

        def transcribe(samples: np.ndarray, batch_size: int, language: str, chunk_size: int) -> dict[str, Any]:
            self.tried.append((compute_type, batch_size))
            if not self.room(compute_type, batch_size):
                raise RuntimeError(self.says(batch_size))
            length = len(samples) / 16_000
            return {
                "segments": [{"text": self.text, "start": 0.0, "end": length, "avg_logprob": self.log_probability}],
                "language": language,
            }

        return SimpleNamespace(transcribe=transcribe, model=SimpleNamespace(detect_language=lambda samples: ("ru", 0.9, [("ru", 0.9)])))

    def load_align_model(self, language: str, device: str, model_name: str) -> tuple[Any, Any]:
        self.loads.append(f"aligner on {device}")
        return object(), {"language": language, "dictionary": {}, "type": "huggingface"}

    def align(self, spans: list[dict[str, Any]], model: Any, metadata: Any, samples: np.ndarray, device: str) -> dict[str, Any]:
        self.aligned_on.append(device)
        if not self.align_room(device):
            raise RuntimeError(TORCH)
        words = spans[0]["text"].split()
        step = spans[0]["end"] / len(words)
        found = [{"word": word, "start": n * step, "end": (n + 0.9) * step, "score": 0.5} for n, word in enumerate(words)]
        del found[1]["start"], found[1]["end"]  # as where a word has no letter that the network knows
        return {"segments": [], "word_segments": found if "немых" not in spans[0]["text"] else []}

    def by_attention(self, model: Any, samples: np.ndarray, text: str, language: str) -> list[Word]:
        self.attention.append(text)
        return [Word(text=word, start=0.1 * n, end=0.1 * n + 0.1, confidence=0.7) for n, word in enumerate(text.split())]

    def diariser(self, model_name: str, token: str | None, device: str) -> Any:
        self.loads.append(f"diariser with {token}")
        rows = [SimpleNamespace(start=start, end=end, speaker=speaker) for start, end, speaker in self.turns]

        class Pipeline:
            model = SimpleNamespace(segmentation_batch_size=32, embedding_batch_size=32)

            def __call__(self, samples: np.ndarray, progress_callback: Callable[[float], None], **speakers: Any) -> Any:
                progress_callback(50.0)
                return SimpleNamespace(itertuples=lambda: rows)

        return Pipeline()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


@pytest.fixture
def engine(played: Played) -> Iterator[Callable[..., WhisperX]]:
    made: list[WhisperX] = []

    def make(**settings: Any) -> WhisperX:
        made.append(WhisperX(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def lesson(tmp_path: Path) -> Path:
    audio.write_clip(tmp_path / "lesson.wav", np.zeros(10 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    return tmp_path / "lesson.wav"


def transcribed(engine: WhisperX, lesson: Path) -> list[Word]:
    shares: list[float] = []
    words = engine.transcribe(lesson, "ru", shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0
    return words


# The ladder


def test_the_batch_is_halved_first_and_then_the_arithmetic_gets_smaller() -> None:
    assert list(ladder(16, "float16", True, COMPUTE_TYPES)) == [
        *[Rung(batch, "float16") for batch in (16, 8, 4, 2, 1)],
        Rung(1, "int8_float16"),
        Rung(1, "int8"),
    ]
    assert list(ladder(1, "int8", True, COMPUTE_TYPES)) == [Rung(1, "int8")]
    assert list(ladder(2, "float16", False, COMPUTE_TYPES)) == [Rung(2, "float16"), Rung(1, "float16")]


def test_arithmetic_that_a_device_lacks_is_no_rung() -> None:
    assert [rung.compute_type for rung in ladder(1, "float16", True, ["int8", "float32"])] == ["int8"]
    assert list(ladder(4, "float16", True, ["int8"])) == [Rung(4, "int8"), Rung(2, "int8"), Rung(1, "int8")]
    assert list(ladder(4, "float16", False, ["int8"])) == []


def test_memory_that_runs_out_is_met_with_half_the_batch(
    engine: Callable[..., WhisperX], played: Played, lesson: Path, caplog: pytest.LogCaptureFixture
) -> None:
    played.room = lambda compute_type, batch: batch <= 4
    recogniser = engine()
    with caplog.at_level(logging.WARNING):
        assert transcribed(recogniser, lesson)
    assert played.tried == [("float16", 16), ("float16", 8), ("float16", 4)]
    assert played.loads.count("float16") == 1  # the model stays
    assert "out of memory with 16 spans at once in float16; going on with 8 in float16" in caplog.text
    assert recogniser.used() == "whisperx"


def test_and_then_with_smaller_arithmetic_and_the_transcript_says_so(
    engine: Callable[..., WhisperX], played: Played, lesson: Path, caplog: pytest.LogCaptureFixture
) -> None:
    played.room = lambda compute_type, batch: compute_type == "int8"
    recogniser = engine(batch_size=2)
    with caplog.at_level(logging.WARNING):
        assert transcribed(recogniser, lesson)
    assert played.tried == [("float16", 2), ("float16", 1), ("int8_float16", 1), ("int8", 1)]
    assert "whisperx, float16" not in residence.loaded()
    assert "going on with 1 in int8_float16" in caplog.text
    assert recogniser.used() == "whisperx (int8 instead of float16)"


def test_memory_that_runs_out_again_is_known_in_other_words_too(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    played.room = lambda compute_type, batch: batch <= 4
    played.says = lambda batch: CUDA if batch == 16 else CUDA_AGAIN
    assert transcribed(engine(), lesson)
    assert played.tried == [("float16", 16), ("float16", 8), ("float16", 4)]
    with pytest.raises(RuntimeError, match=r"^parallel_for failed"):
        engine(batch_size=8).transcribe(lesson, "ru", lambda share: None)  # nothing had run out: the GPU is not there


def test_a_model_that_does_not_even_load_is_loaded_smaller(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    played.loading_room = lambda compute_type: compute_type != "float16"
    recogniser = engine(batch_size=1)
    assert transcribed(recogniser, lesson)
    assert recogniser.used() == "whisperx (int8_float16 instead of float16)"


def test_at_the_foot_of_the_ladder_the_failure_is_raised(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    played.room = lambda compute_type, batch: False
    with pytest.raises(RuntimeError, match=CUDA):
        transcribed(engine(batch_size=2, may_fall_back=False), lesson)
    assert played.tried == [("float16", 2), ("float16", 1)]


def test_any_other_failure_is_raised_at_once(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    def broken(compute_type: str, batch: int) -> bool:
        raise RuntimeError("CUDA error: device-side assert triggered")

    played.room = broken
    with pytest.raises(RuntimeError, match="assert"):
        transcribed(engine(), lesson)
    assert len(played.tried) == 1


def test_another_model_gives_way_before_the_batch_does(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    owner = Played.__new__(Played)
    with residence.use(owner, "idle", object, device="cuda", size=1, name="idle"):
        pass
    played.room = lambda compute_type, batch: "idle" not in residence.loaded()
    transcribed(engine(), lesson)
    assert played.tried == [("float16", 16), ("float16", 16)]


def test_the_next_lesson_begins_at_the_top_again(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    recogniser = engine(batch_size=2)
    played.room = lambda compute_type, batch: compute_type == "int8"
    transcribed(recogniser, lesson)
    played.room = lambda compute_type, batch: True
    transcribed(recogniser, lesson)
    assert played.tried[-1] == ("float16", 2)
    assert recogniser.used() == "whisperx"


# Words, alignment, speakers


def test_words_have_the_network_s_times_and_the_recogniser_s_confidence(
    engine: Callable[..., WhisperX], played: Played, lesson: Path
) -> None:
    words = transcribed(engine(), lesson)
    assert [word.text for word in words] == played.text.split()
    assert [round(word.start, 2) for word in words] == [0.0, 1.8, 4.0, 6.0, 8.0]  # the second begins where the first ended
    assert {round(word.confidence, 3) for word in words} == {0.819}
    assert played.attention == []


def test_a_span_that_cannot_be_aligned_has_the_recogniser_s_times(
    engine: Callable[..., WhisperX], played: Played, lesson: Path, caplog: pytest.LogCaptureFixture
) -> None:
    played.text = "Слово для немых"
    with caplog.at_level(logging.WARNING):
        assert [word.text for word in transcribed(engine(), lesson)] == ["Слово", "для", "немых"]
    assert played.attention == ["Слово для немых"]
    assert "1 of 1 spans could not be aligned" in caplog.text


def test_aligning_that_runs_out_of_memory_goes_on_on_the_cpu(
    engine: Callable[..., WhisperX], played: Played, lesson: Path, caplog: pytest.LogCaptureFixture
) -> None:
    played.align_room = lambda device: device == "cpu"
    with caplog.at_level(logging.WARNING):
        assert transcribed(engine(), lesson)
    assert played.aligned_on[0] == "cuda" and played.aligned_on[-1] == "cpu"
    assert "out of memory while aligning on cuda; going on on the CPU" in caplog.text


def test_a_network_for_two_languages_is_loaded_for_each(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    told: list[str] = []
    align = played.align

    def listening(spans: Any, model: Any, metadata: Any, *more: Any) -> Any:
        told.append(metadata["language"])
        return align(spans, model, metadata, *more)

    sys.modules["whisperx.alignment"].align = listening  # type: ignore[attr-defined]
    recogniser = engine(aligners={"uk": ALIGNERS["ru"]}, keep_loaded_for=600)
    for language in ("ru", "uk", "ru"):
        recogniser.transcribe(lesson, language, lambda share: None)
    recogniser.close()
    assert told == ["ru", "uk", "ru"]


def test_a_language_without_a_model_says_so(
    engine: Callable[..., WhisperX], played: Played, lesson: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        words = engine().transcribe(lesson, "kk", lambda share: None)
    assert words and played.attention and not played.aligned_on
    assert "no alignment model for Kazakh; the recogniser's own word times are used" in caplog.text


def test_torch_is_told_how_many_processors_there_are(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    """Before the aligner and before pyannote: by itself torch takes as many threads as the machine has processors, whatever the quota."""
    transcribed(engine(diarised=True, threads=3), lesson)
    assert played.threads and set(played.threads) == {3}


def test_speakers_are_told_apart(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    words = transcribed(engine(diarised=True, hugging_face_token=SecretStr("hf_secret")), lesson)
    assert [word.speaker for word in words] == ["speaker 1", "speaker 1", "speaker 2", "speaker 2", "speaker 2"]
    assert played.loads[-1] == "diariser with hf_secret"


def test_what_nobody_said_is_left_out_and_told(
    engine: Callable[..., WhisperX], played: Played, lesson: Path, caplog: pytest.LogCaptureFixture
) -> None:
    played.text = "Свет проходит через каплю воды. Субтитры сделал DimaTorzok"
    recogniser = engine()
    with caplog.at_level(logging.WARNING):
        assert [word.text for word in transcribed(recogniser, lesson)] == "Свет проходит через каплю воды.".split()
    assert [(one.text, one.why) for one in recogniser.left_out()] == [("Субтитры сделал DimaTorzok", "credits of subtitles")]
    assert "left out at 0.0 s: Субтитры сделал DimaTorzok" in caplog.text
    played.text, played.log_probability = "Бессмыслица.", -2.4
    assert transcribed(recogniser, lesson) == []


def test_the_glossary_reaches_the_recogniser(engine: Callable[..., WhisperX], played: Played, lesson: Path) -> None:
    transcribed(engine(hotwords=("Якутск", "постоянная Больцмана"), initial_prompt="Лекция по физике.", beam_size=3), lesson)
    options = played.load_options["asr_options"]
    assert options == {"beam_size": 3, "initial_prompt": "Лекция по физике.", "hotwords": "Якутск, постоянная Больцмана"}


def test_the_three_models_give_way_to_each_other(engine: Callable[..., WhisperX], played: Played, lesson: Path, monkeypatch: Any) -> None:
    seen: list[list[str]] = []
    align = played.align
    sys.modules["whisperx.alignment"].align = lambda *given: seen.append(residence.loaded()) or align(*given)  # type: ignore[attr-defined]
    monkeypatch.setattr(residence, "_free_memory", lambda device: 0)
    recogniser = engine(diarised=True)
    transcribed(recogniser, lesson)
    assert len(seen[0]) == 1 and "russian" in seen[0][0]
    assert residence.loaded() == ["whisperx, speakers"]
    recogniser.close()
    assert residence.loaded() == []


# Settings and keys


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"compute_type": "int4"}, "compute_type"),
        ({"vad": "webrtc"}, "vad"),
        ({"vad_onset": 1.0}, "vad_onset"),
        ({"min_speakers": 3, "max_speakers": 2}, "min_speakers 3: must not be greater than max_speakers 2"),
        ({"hotwords": ("x" * HINT_CHARACTERS, "y")}, f"together at most {HINT_CHARACTERS} characters"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        WhisperX(**settings)


def test_the_key_knows_every_package_that_hears() -> None:
    assert set(FasterWhisper.packages) <= set(WhisperX.packages), "what finds speech and reads a recording is the same"


def test_a_model_without_a_commit_is_refused() -> None:
    for settings in (
        {"model": "Systran/faster-whisper-large-v3"},
        {"aligners": {"ru": "owner/name@main"}},
        {"diarised": True, "diariser": "a/b"},
    ):
        with pytest.raises(BadSetting, match=r"^model .*: neither"):
            WhisperX(**settings).fingerprint()


def test_without_its_packages_it_says_how_to_get_them(lesson: Path) -> None:
    if not (lacking := [package for package in WhisperX.packages if WhisperX().fingerprint()["packages"][package] == "not installed"]):
        pytest.skip("they are installed here")
    with pytest.raises(BadSetting, match=rf"^whisperx: not installed here: {lacking[0]}.*pip install 'coursedub\[whisperx\]'"):
        WhisperX().transcribe(lesson, "ru", lambda share: None)


def test_the_key_knows_what_shapes_the_words_and_no_secret(tmp_path: Path) -> None:
    one = WhisperX(hugging_face_token=SecretStr("hf_secret"))
    assert "hf_secret" not in str(one.fingerprint()) and "hf_secret" not in repr(one)
    assert digest(one) == digest(WhisperX(batch_size=1, device="cpu", threads=3, keep_loaded_for=9))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in "ab":
        (tmp_path / folder / "model.bin").write_text("weights")
    assert digest(WhisperX(model=str(tmp_path / "a"))) == digest(WhisperX(model=str(tmp_path / "b")))
    (tmp_path / "b" / "model.bin").write_text("others")
    keys = [
        WhisperX(),
        WhisperX(model=str(tmp_path / "a")),
        WhisperX(model=str(tmp_path / "b")),
        WhisperX(may_fall_back=False),
        WhisperX(diarised=True),
        WhisperX(diarised=True, diariser=str(tmp_path / "a")),
        WhisperX(aligned=False),
        WhisperX(aligners={"ru": str(tmp_path / "a")}),
        WhisperX(hotwords=("a",)),
    ]
    assert len({digest(key) for key in keys}) == len(keys)
    assert digest(WhisperX(diariser=str(tmp_path / "a"))) == digest(WhisperX())  # nobody is told apart
