"""WhisperX's own code: Whisper base, the voice detectors, a tiny alignment network of random weights, on the CPU and on a GPU."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from blocks.recogniser import RATE
from blocks.residence import residence
from blocks.whisperx import WhisperX
from dubbing import audio, devices, hub, media
from dubbing.errors import BadSetting, EngineRefused, WeightsUnavailable
from dubbing.lesson import Word
from dubbing.segmentation import utterances_from
from dubbing.verification import word_errors
from tests.engines import checkpoints
from tests.engines.checkpoints import WAV2VEC2
from tests.engines.conftest import SmallGpu, free

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "lesson_ru.mp4"
SENTENCES = json.loads(SAMPLE.with_suffix(".json").read_text())["sentences"]
TRUTH = " ".join(sentence["text"] for sentence in SENTENCES)


def no_progress(share: float) -> None:
    assert 0.0 <= share <= 1.0


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    probed = media.probe(SAMPLE, SAMPLE.name)
    audio.extract(SAMPLE, probed.sound, probed.duration, folder / "lesson.wav")
    return folder / "lesson.wav"


@pytest.fixture(scope="module")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligner")
    checkpoints.aligner(folder, **WAV2VEC2)
    return folder


@pytest.fixture(scope="module")
def engine(device: str) -> Iterator[Callable[..., WhisperX]]:
    made: list[WhisperX] = []

    def make(**settings: object) -> WhisperX:
        compute_type = "float16" if device == "cuda" else "int8"
        standard = {"model": "whisper-base", "compute_type": compute_type, "batch_size": 4, "aligned": False, "device": device}
        made.append(WhisperX(**standard | settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert residence.loaded() == []


@pytest.fixture(scope="module")
def words(engine: Callable[..., WhisperX], sample: Path) -> list[Word]:
    shares: list[float] = []
    found = engine().transcribe(sample, "ru", shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0
    return found


def test_less_than_one_word_in_ten_is_wrong(words: list[Word]) -> None:
    assert word_errors(TRUTH, " ".join(word.text for word in words), "ru").rate < 0.10


def test_without_an_alignment_model_words_have_the_recogniser_s_times_and_it_is_said(
    engine: Callable[..., WhisperX], sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = engine(aligned=True, aligners={"ru": ""}).transcribe(sample, "ru", no_progress)
    assert "no alignment model for Russian" in caplog.text
    starts = [line.start for line in utterances_from(found, "ru")]
    near = [min(abs(start - sentence["start"]) for start in starts) for sentence in SENTENCES]
    assert np.median(near) < 0.6


def test_the_language_is_heard_and_a_clip_is_heard_and_aligned(engine: Callable[..., WhisperX], sample: Path) -> None:
    recogniser = engine()
    assert recogniser.detect_language(sample) == "ru"
    sentence = SENTENCES[1]
    clip = audio.read_span(sample, sentence["start"], sentence["end"], RATE)
    assert word_errors(sentence["text"], recogniser.hear(clip, "ru"), "ru").errors <= 1
    assert " ".join(word.text for word in recogniser.align(clip, sentence["text"], "ru")) == sentence["text"]


def test_the_other_voice_detector_finds_the_same_words(engine: Callable[..., WhisperX], sample: Path, words: list[Word]) -> None:
    found = engine(vad="silero").transcribe(sample, "ru", no_progress)
    assert word_errors(" ".join(word.text for word in words), " ".join(word.text for word in found), "ru").rate < 0.1


def test_every_word_is_aligned_by_the_network(engine: Callable[..., WhisperX], sample: Path, aligner: Path, words: list[Word]) -> None:
    """Of random weights: it can't know when, but every word gets a time of its own inside the span, in order."""
    recogniser = engine(aligned=True, aligners={"ru": str(aligner)})
    found = recogniser.transcribe(sample, "ru", no_progress)
    assert [word.text for word in found] == [word.text for word in words]
    assert all(0.0 <= word.start <= word.end for word in found)
    assert [word.start for word in found] == sorted(word.start for word in found)
    assert [word.start for word in found] != [word.start for word in words]
    sentence = SENTENCES[1]
    clip = audio.read_span(sample, sentence["start"], sentence["end"], RATE)
    assert " ".join(word.text for word in recogniser.align(clip, sentence["text"], "ru")) == sentence["text"]


def test_text_without_a_letter_that_the_network_knows_gets_a_time_too(engine: Callable[..., WhisperX], sample: Path, aligner: Path) -> None:
    recogniser = engine(aligned=True, aligners={"ru": str(aligner)})
    clip = audio.read_span(sample, 1.0, 4.0, RATE)
    for text in ("20% = 7", "Sunlight is white."):
        aligned = recogniser.align(clip, text, "ru")
        assert " ".join(word.text for word in aligned) == text
        assert all(0.0 <= word.start <= word.end <= 3.1 for word in aligned)


def test_hotwords_are_written_as_the_course_spells_them(engine: Callable[..., WhisperX], sample: Path, words: list[Word]) -> None:
    recogniser = engine(hotwords=("Радуга", "капля"), initial_prompt="Лекция о радуге.")
    found = recogniser.transcribe(sample, "ru", no_progress)
    assert word_errors(TRUTH, " ".join(word.text for word in found), "ru").rate < 0.15
    assert recogniser.fingerprint() != engine().fingerprint()


def test_where_nobody_speaks_there_are_no_words(engine: Callable[..., WhisperX], tmp_path: Path) -> None:
    noise = 0.02 * np.random.default_rng(1).standard_normal(10 * media.SAMPLE_RATE)
    for sound in (np.zeros(10 * media.SAMPLE_RATE), noise, np.zeros(100)):
        audio.write_clip(tmp_path / "sound.wav", sound.astype(np.float32), media.SAMPLE_RATE)
        assert engine().transcribe(tmp_path / "sound.wav", "ru", no_progress) == []
        assert engine().detect_language(tmp_path / "sound.wav") == ""


def test_arithmetic_that_the_processor_lacks_is_replaced_and_told(
    engine: Callable[..., WhisperX], device: str, sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if device == "cuda":
        pytest.skip("a GPU has all of it")
    recogniser = engine(compute_type="int8_float16")
    with caplog.at_level(logging.WARNING):
        assert recogniser.detect_language(sample) == "ru"
    assert "cpu has no arithmetic for int8_float16; going on with int8" in caplog.text
    assert recogniser.used() == "whisperx (int8 instead of int8_float16)"
    with pytest.raises(BadSetting, match=r"^compute type int8_float16: this machine's cpu has no arithmetic for it; it has .*int8"):
        engine(compute_type="int8_float16", may_fall_back=False).detect_language(sample)


def test_models_that_cannot_be_had_are_refused_before_any_work(
    engine: Callable[..., WhisperX], sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailable, match=r"^model jonatasgrosman/.*: it isn't on this machine"):
        engine(aligned=True).transcribe(sample, "ru", no_progress)
    with pytest.raises(WeightsUnavailable, match=r"^alignment model WAV2VEC2_ASR_BASE_960H: it isn't on this machine, and HF_HUB_OFFLINE"):
        engine(aligned=True).transcribe(sample, "en", no_progress)
    with pytest.raises(WeightsUnavailable, match=r"^model pyannote/"):
        engine(diarised=True).transcribe(sample, "ru", no_progress)
    with pytest.raises(BadSetting, match="there is no such folder"):
        engine(model="/no/such/folder").transcribe(sample, "ru", no_progress)


def test_a_folder_that_holds_something_else_is_refused_in_a_line(engine: Callable[..., WhisperX], sample: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EngineRefused, match=r"^alignment model .*: no wav2vec2 network"):
        engine(aligned=True, aligners={"ru": str(tmp_path)}).transcribe(sample, "ru", no_progress)
    with pytest.raises(EngineRefused, match=r"^diariser .*: no pipeline of pyannote"):
        engine(diarised=True, diariser=str(tmp_path)).transcribe(sample, "ru", no_progress)


def test_a_model_in_a_folder_is_the_catalogue_s_to_the_word(engine: Callable[..., WhisperX], sample: Path, words: list[Word]) -> None:
    folder = str(hub.folder_of("whisper-base"))
    assert engine(model=folder).transcribe(sample, "ru", no_progress) == words


def test_standard_output_stays_clean(engine: Callable[..., WhisperX], sample: Path, aligner: Path, capsys: pytest.CaptureFixture) -> None:
    engine(aligned=True, aligners={"ru": str(aligner)}, vad="silero", beam_size=1).transcribe(sample, "ru", no_progress)
    assert capsys.readouterr().out == ""


# On a GPU only


@pytest.fixture
def on_gpu(gpu: str, aligner: Path) -> Iterator[Callable[..., WhisperX]]:
    """Engines on the GPU, or elsewhere, each closed before the next one is made."""
    made: list[WhisperX] = []

    def make(**settings: object) -> WhisperX:
        for one in made:
            one.close()
        made.append(WhisperX(**{"model": "whisper-base", "aligners": {"ru": str(aligner)}, "device": "auto"} | settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def text_of(words: list[Word]) -> str:
    return " ".join(word.text for word in words)


def test_a_gpu_hears_what_the_cpu_hears(on_gpu: Callable[..., WhisperX], sample: Path) -> None:
    on_cpu = on_gpu(device="cpu", compute_type="float32", aligned=False).transcribe(sample, "ru", no_progress)
    for compute_type in ("float32", "float16", "int8_float16", "int8"):
        recogniser = on_gpu(compute_type=compute_type, may_fall_back=False, aligned=False)
        found = recogniser.transcribe(sample, "ru", no_progress)
        assert word_errors(text_of(on_cpu), text_of(found), "ru").rate < 0.05, compute_type
        assert np.median([abs(ours.start - theirs.start) for ours, theirs in zip(found, on_cpu, strict=False)]) < 0.1
        assert recogniser.used() == "whisperx"


def test_a_gpu_aligns_as_the_cpu_does(on_gpu: Callable[..., WhisperX], sample: Path) -> None:
    sentence = SENTENCES[1]
    clip = audio.read_span(sample, sentence["start"], sentence["end"], RATE)
    ours, theirs = (on_gpu(device=device).align(clip, sentence["text"], "ru") for device in ("auto", "cpu"))
    assert [word.text for word in ours] == [word.text for word in theirs]
    np.testing.assert_allclose([word.start for word in ours], [word.start for word in theirs], atol=0.05)


def test_with_ever_less_memory_a_gpu_hears_the_same_words_until_the_model_has_no_room(
    on_gpu: Callable[..., WhisperX], small_gpu: SmallGpu, sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = ""
    for megabytes in range(1000, 0, -50):
        recogniser = on_gpu(batch_size=16, aligned=False)
        caplog.clear()
        with small_gpu(megabytes << 20), caplog.at_level(logging.WARNING):
            try:
                found = recogniser.transcribe(sample, "ru", no_progress)
            except Exception as error:
                assert devices.is_out_of_memory(error, again="out of memory" in caplog.text)
                break
            finally:
                recogniser.close()
                told += caplog.text
        assert word_errors(TRUTH, text_of(found), "ru").rate < 0.1
    assert "out of memory with 16 spans at once in float16; going on with 8 in float16" in told
    assert megabytes > 50


def test_alignment_goes_on_on_the_cpu_where_a_gpu_has_no_memory_left(
    on_gpu: Callable[..., WhisperX], small_gpu: SmallGpu, sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = SENTENCES[1]
    clip = audio.read_span(sample, sentence["start"], sentence["end"], RATE)
    recogniser = on_gpu()
    with small_gpu(0), caplog.at_level(logging.WARNING):
        found = recogniser.align(clip, sentence["text"], "ru")
        recogniser.close()
    assert text_of(found) == sentence["text"]
    assert "out of memory while aligning on cuda; going on on the CPU" in caplog.text


def test_a_gpu_s_memory_is_free_again_when_the_engine_is_closed(on_gpu: Callable[..., WhisperX], sample: Path) -> None:
    left = []
    for _ in range(3):
        recogniser = on_gpu()
        recogniser.transcribe(sample, "ru", no_progress)
        in_use = free()
        recogniser.close()
        left.append(free())
        assert left[-1] > in_use
    assert left[2] == left[1]  # what CUDA's own libraries take when they are first used stays
