"""Translators: a line for each line whatever the model answers; the real ones on real sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

from blocks.translation import ChatTranslator, LlamaTranslator, WhisperTranslator
from dubbing import audio, media
from dubbing.errors import EngineRefused, PassingFault
from dubbing.languages import share_in_script
from dubbing.lesson import TranslatedLine, Utterance
from dubbing.problems import COMMENTING
from dubbing.translating import Window

SAMPLE = Path(__file__).parents[2] / "samples" / "lesson_ru.mp4"
RED, BLUE, WHITE = "Красный свет поворачивает меньше.", "Синий свет поворачивает больше.", "Белый свет состоит из цветов."
GOOD = {"1": "Red light turns less.", "2": "Blue light turns more.", "3": "White light is made of colours."}


class Scripted(ChatTranslator):
    """Gives the answers it was handed, one a request."""

    name: str = "scripted"

    _answers: list[Any] = PrivateAttr(default_factory=list)
    _asked: list[tuple[list[int], str]] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return self.name

    def room_to_read(self) -> int:
        return 1000

    def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
        self._asked.append(([int(n) for n in schema["required"]], f"{instructions}\n{request}"))
        answer = self._answers[len(self._asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


Scripted.engine_name = "scripted"


def window(*texts: str) -> Window:
    utterances = tuple(
        Utterance(id=f"line{n}", text=text, start=5.0 * n, end=5.0 * n + 4.0, confidence=1.0) for n, text in enumerate(texts, 1)
    )
    return Window(utterances)


def translated(
    answers: list[Any], *texts: str, translator: Scripted | None = None, **given: Any
) -> tuple[list[TranslatedLine], list[tuple[list[int], str]]]:
    """Args:
    given: fields of the window.
    """
    translator = translator or Scripted()
    translator._answers = answers
    lines = translator.translate(window(*(texts or (RED, BLUE, WHITE)))._replace(**given), "ru", "en")
    assert len(translator._asked) == len(answers), "every answer is asked for"
    return lines, translator._asked


def test_a_good_answer_takes_one_request() -> None:
    lines, asked = translated([GOOD])
    assert [line.text for line in lines] == list(GOOD.values())
    assert [(line.id, line.flags, line.attempts) for line in lines] == [(f"line{n}", (), 1) for n in (1, 2, 3)]
    assert asked[0][0] == [1, 2, 3]


def test_only_a_bad_line_is_asked_for_again_and_told_what_was_wrong() -> None:
    lines, asked = translated([GOOD | {"2": BLUE}, {"2": GOOD["2"]}])
    assert [line.text for line in lines] == list(GOOD.values())
    assert [line.attempts for line in lines] == [1, 2, 1]
    assert asked[1][0] == [2]
    assert "line 2: it is not in English" in asked[1][1]


def test_lines_that_stay_bad_are_asked_for_alone() -> None:
    lines, asked = translated([{"1": GOOD["1"]}, {}, {"2": GOOD["2"]}, {"3": GOOD["3"]}])
    assert [line.text for line in lines] == list(GOOD.values())
    assert [wanted for wanted, _ in asked] == [[1, 2, 3], [2, 3], [2], [3]]
    assert not any(line.flags for line in lines)


def test_a_line_that_never_comes_is_empty_and_flagged() -> None:
    lines, _ = translated([GOOD | {"2": ""}, {}, {"2": "..."}])
    assert lines[1] == TranslatedLine(id="line2", text="", flags=("translation: it is missing",), attempts=3)
    assert not lines[0].flags and not lines[2].flags


def test_text_that_no_voice_of_the_language_can_say_is_not_kept() -> None:
    lines, _ = translated([GOOD | {"2": "Синий свет."}, {"2": "Синий."}, {"2": "蓝光。"}])
    assert (lines[1].text, lines[1].flags) == ("", ("translation: it is not in English",))


def test_of_doubtful_answers_one_that_can_be_said_is_kept_with_its_own_doubt() -> None:
    doubtful = "Blue light turns more, " * 8
    lines, _ = translated([GOOD | {"2": "Синий свет."}, {"2": doubtful}, {"2": "Синий."}])
    assert lines[1].text == doubtful.strip()
    assert "too long" in lines[1].flags[0]


def test_a_refusal_is_not_said_aloud() -> None:
    refusal = {"2": "I'm sorry, but I can't help with that request."}
    lines, _ = translated([GOOD | refusal, refusal, refusal])
    assert (lines[1].text, lines[1].flags) == ("", (f"translation: {COMMENTING}",))


@pytest.mark.parametrize("answer", ["I can't answer in JSON.", '{"1": "Red light tur', "", "[]", '{"1": {"2": "3"}}', '{"a":' * 5000])
def test_an_answer_that_is_no_json_is_asked_for_again(answer: str) -> None:
    lines, asked = translated([answer, GOOD])
    assert [line.text for line in lines] == list(GOOD.values())
    assert "line 1: it is missing" in asked[1][1]


def test_a_model_that_never_understands_costs_flags_and_not_the_lesson() -> None:
    lines, asked = translated(["?"] * 5)
    assert [(line.text, line.flags) for line in lines] == [("", ("translation: it is missing",))] * 3
    assert len(asked) == 5  # twice the window, once each line


def test_a_request_that_the_engine_refuses_is_tried_in_smaller_pieces() -> None:
    refused = EngineRefused("llama.cpp: the request exceeds the available context size")
    lines, _ = translated([refused, refused, {"1": GOOD["1"]}, refused, {"3": GOOD["3"]}])
    assert [line.text for line in lines] == [GOOD["1"], "", GOOD["3"]]
    assert "context size" in lines[1].flags[0]


def test_a_passing_fault_is_not_taken_for_a_bad_line() -> None:
    with pytest.raises(PassingFault):
        translated([PassingFault("the server went away")])


def test_a_translation_given_twice_is_doubted_unless_the_lines_are_the_same() -> None:
    twice = {"1": GOOD["1"], "2": GOOD["1"]}
    lines, asked = translated([twice, {"1": GOOD["1"], "2": GOOD["2"]}], RED, BLUE)
    assert [line.text for line in lines] == [GOOD["1"], GOOD["2"]]
    assert "it repeats another line" in asked[1][1]
    lines, _ = translated([twice], RED, RED)
    assert not any(line.flags for line in lines)


def test_a_line_keeps_to_its_budget() -> None:
    lines, asked = translated([{"1": GOOD["1"]}, {"1": "Red turns less."}], RED, budgets={1: 16}, strict=True)
    assert lines[0].text == "Red turns less." and not lines[0].flags
    assert "line 1 in at most 16 characters" in asked[0][1]
    assert "it is too long (21 characters)" in asked[1][1]


def test_a_line_over_its_budget_is_better_than_none() -> None:
    lines, _ = translated([{"1": GOOD["1"]}] * 3, RED, budgets={1: 5}, strict=True)
    assert (lines[0].text, lines[0].flags) == (GOOD["1"], ("translation: it is too long (21 characters)",))


def test_what_an_engine_cannot_translate_it_says_beforehand() -> None:
    assert LlamaTranslator().refusal("ru", "en") is None
    assert "xx" in str(LlamaTranslator().refusal("xx", "en"))
    assert "English only" in str(WhisperTranslator().refusal("ru", "es"))
    assert WhisperTranslator().refusal("ru", "en-GB") is None


# The real ones


@pytest.fixture(scope="module")
def llama() -> Iterator[LlamaTranslator]:
    translator = LlamaTranslator()
    yield translator
    translator.close()


def test_a_small_model_translates_sentences_of_a_lecture_and_the_same_way_each_time(llama: LlamaTranslator) -> None:
    lecture = window("Солнечный свет кажется белым.", "Красный свет поворачивает меньше.", "Температура была 300 градусов.")
    lines = llama.translate(lecture, "ru", "en")
    assert [line.flags for line in lines] == [()] * 3
    assert re.search(r"sun", lines[0].text, re.IGNORECASE) and "white" in lines[0].text
    assert "red" in lines[1].text.lower()
    assert "300" in lines[2].text or "three hundred" in lines[2].text
    assert llama.translate(lecture, "ru", "en") == lines


def test_a_request_too_long_for_the_models_context_is_refused_and_the_line_flagged() -> None:
    translator = LlamaTranslator(context=512)
    lines = translator.translate(window("Красный свет поворачивает меньше, чем синий. " * 60), "ru", "en")
    translator.close()
    assert len(lines) == 1 and lines[0].flags


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wav = tmp_path_factory.mktemp("sample") / "lesson.wav"
    probed = media.probe(SAMPLE, SAMPLE.name)
    audio.extract(SAMPLE, probed.sound, 22.0, wav)
    return wav


def test_whisper_translates_what_it_hears_and_maps_it_to_the_lines(sample: Path) -> None:
    truth = json.loads(SAMPLE.with_suffix(".json").read_text())["sentences"][:4]
    said = [
        Utterance(id=f"line{n}", text=line["text"], start=line["start"], end=line["end"], confidence=1.0) for n, line in enumerate(truth)
    ]
    translator = WhisperTranslator()
    [heard] = translator.windows(said)
    lines = translator.translate(heard, "ru", "en", sample)
    translator.close()
    assert [line.id for line in lines] == [line.id for line in said]
    text = " ".join(line.text for line in lines)
    assert share_in_script(text, "en") == 1.0
    assert "white" in text.lower() and "red" in text.lower()
    assert "today" in lines[0].text.lower()
    spoken = {line.id for line in lines if line.text}
    assert len(spoken) >= 3
    assert all(line.text or line.said_with in spoken for line in lines)


def test_whisper_takes_as_many_whole_lines_as_it_hears_at_once() -> None:
    said = window(*["Свет."] * 20).lines
    cut = WhisperTranslator().windows(said)
    assert [line for group in cut for line in group.lines] == list(said)
    assert all(group.lines[-1].end - group.lines[0].start <= 30.0 for group in cut)
