"""WhisperX's own code: Whisper base, the voice detectors, a tiny alignment network and a tiny diarisation pipeline of random weights."""

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
from dubbing import audio, hub, media
from dubbing.errors import BadSetting, EngineRefused, WeightsUnavailable
from dubbing.lesson import Word
from dubbing.segmentation import utterances_from
from dubbing.verification import word_errors

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "lesson_ru.mp4"
SENTENCES = json.loads(SAMPLE.with_suffix(".json").read_text())["sentences"]
TRUTH = " ".join(sentence["text"] for sentence in SENTENCES)
LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюя"


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
    """A wav2vec2 of random weights that knows the Russian letters, saved as the hub's are."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor

    folder = tmp_path_factory.mktemp("aligner")
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "|", *LETTERS])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|")
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(sampling_rate=RATE), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine() -> Iterator[Callable[..., WhisperX]]:
    made: list[WhisperX] = []

    def make(**settings: object) -> WhisperX:
        standard = {"model": "whisper-base", "compute_type": "int8", "batch_size": 4, "aligned": False, "device": "cpu"}
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
    engine: Callable[..., WhisperX], sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
