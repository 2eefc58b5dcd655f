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
from blocks.translator import RequestTooLong
from dubbing import audio, media
from dubbing.errors import EngineRefused, PassingFault
from dubbing.languages import share_in_script
from dubbing.lesson import Term, Termbase, TranslatedLine, Utterance
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
        self._asked.append(([int(n) for n in schema["required"] if n.isdigit()], f"{instructions}\n{request}"))
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


FOUR = (RED, BLUE, WHITE, "Радуга появляется после дождя.")
RAINBOW = "The rainbow appears after rain."


def test_many_bad_lines_are_asked_for_in_halves_before_they_are_asked_for_alone() -> None:
    lines, asked = translated([{}, {}, {"1": GOOD["1"], "2": GOOD["2"]}, {"4": RAINBOW}, {"3": GOOD["3"]}], *FOUR)
    assert [wanted for wanted, _ in asked] == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2], [3, 4], [3]]
    assert [(line.text, line.rung, line.attempts) for line in lines] == [
        (GOOD["1"], "split", 3),
        (GOOD["2"], "split", 3),
        (GOOD["3"], "line", 4),
        (RAINBOW, "split", 3),
    ]


def test_a_request_that_is_too_long_is_not_made_again_as_it_is() -> None:
    refused = RequestTooLong("too long")
    lines, asked = translated([refused, {"1": GOOD["1"], "2": GOOD["2"]}, {"3": GOOD["3"], "4": RAINBOW}], *FOUR)
    assert [wanted for wanted, _ in asked] == [[1, 2, 3, 4], [1, 2], [3, 4]]
    assert not any(line.flags for line in lines)
    lines, asked = translated([refused], RED)
    assert lines[0].flags == ("translation: too long",) and len(asked) == 1


def test_another_model_is_asked_for_what_stays_wrong_and_the_report_names_it() -> None:
    other = Scripted(name="other")
    other._answers = [{}, {"2": GOOD["2"]}]
    lines, _ = translated([GOOD | {"2": BLUE}, {}, {}], translator=Scripted(fallback=other))
    assert [wanted for wanted, _ in other._asked] == [[2], [2]]
    assert [(line.text, line.model, line.rung, line.attempts) for line in lines[:2]] == [
        (GOOD["1"], "scripted", "window", 1),
        (GOOD["2"], "other", "fallback", 5),
    ]


def test_where_the_other_model_fails_too_the_first_ones_line_stays_flagged() -> None:
    other = Scripted(name="other")
    other._answers = [{}] * 3
    lines, _ = translated([GOOD | {"2": BLUE}, {}, {}], translator=Scripted(fallback=other))
    assert (lines[1].text, lines[1].flags, lines[1].attempts) == ("", ("translation: it is missing",), 6)


def test_a_model_that_needs_the_sound_cannot_be_the_other_one() -> None:
    with pytest.raises(ValueError, match="fallback: whisper works from the sound"):
        Scripted(fallback=WhisperTranslator())


# Doubts: a line that can be said, and may be better


PRISM = Term(source="призма", translation="prism", certain=True)
THROUGH = "Свет проходит через призму."


def test_a_line_without_a_term_is_asked_for_once_more() -> None:
    lines, asked = translated([{"1": "Light passes through the wedge."}, {"1": "Light passes through the prism."}], THROUGH, terms=(PRISM,))
    assert "it does not say “prism” for “призма”" in asked[1][1]
    assert (lines[0].text, lines[0].rung, lines[0].flags) == ("Light passes through the prism.", "again", ())


@pytest.mark.parametrize("certain", [True, False])
def test_a_term_that_is_never_used_is_flagged_when_a_person_asked_for_it(certain: bool) -> None:
    term = PRISM.model_copy(update={"certain": certain})
    lines, _ = translated([{"1": "Light passes through the wedge."}] * 2, THROUGH, terms=(term,))
    assert lines[0].text == "Light passes through the wedge."
    assert bool(lines[0].flags) is certain


def test_a_line_with_too_little_time_is_asked_for_once_more_and_then_taken() -> None:
    long, shorter = "Light is passing through the prism of glass.", "Light passes through the prism of glass."
    lines, asked = translated([{"1": long}, {"1": shorter}], THROUGH, budgets={1: 20})
    assert "it is too long (44 characters, there is time for 20)" in asked[1][1]
    assert (lines[0].text, lines[0].flags) == (shorter, ())
    lines, _ = translated([{"1": shorter}, {"1": long}], THROUGH, budgets={1: 20})
    assert lines[0].text == shorter, "what came of asking was worse"


def test_a_line_a_little_over_its_time_is_not_worth_a_request() -> None:
    translated([{"1": "Light passes the prism."}], THROUGH, budgets={1: 22})


def test_what_is_wrong_never_takes_the_place_of_what_is_doubtful() -> None:
    lines, _ = translated([{"1": "Light passes through the wedge."}, {"1": THROUGH}], THROUGH, terms=(PRISM,))
    assert (lines[0].text, lines[0].rung) == ("Light passes through the wedge.", "window")


def test_merged_lines_are_noticed_when_the_other_one_comes() -> None:
    merged = {"1": f"{GOOD['1']} {GOOD['2']}", "3": GOOD["3"]}
    lines, asked = translated([merged, {"2": GOOD["2"]}, {"1": GOOD["1"]}])
    assert [wanted for wanted, _ in asked] == [[1, 2, 3], [2], [1]]
    assert [line.text for line in lines] == list(GOOD.values())


def test_lines_that_are_known_are_context_and_not_asked_for() -> None:
    lines, asked = translated([{"2": GOOD["2"]}], known={1: GOOD["1"], 3: GOOD["3"]})
    assert [line.id for line in lines] == ["line2"]
    assert asked[0][0] == [2] and RED in asked[0][1]


# Wordings


WORDINGS = {"short": "Red turns less.", "normal": "Red light turns less.", "long": "The red light is turning less than others."}


@pytest.mark.parametrize(("budget", "chosen"), [(None, "normal"), (50, "long"), (25, "normal"), (15, "short"), (14, "short")])
def test_of_three_wordings_time_chooses(budget: int | None, chosen: str) -> None:
    lines, _ = translated([{"1": WORDINGS}], RED, translator=Scripted(variants=True), budgets={} if budget is None else {1: budget})
    assert lines[0].text == WORDINGS[chosen]
    assert lines[0].variants == tuple(WORDINGS.values())


def test_a_wording_that_is_wrong_is_not_chosen() -> None:
    lines, _ = translated([{"1": WORDINGS | {"long": RED}}], RED, translator=Scripted(variants=True), budgets={1: 50})
    assert lines[0].text == WORDINGS["normal"]


# Reading ahead


def read(answers: list[Any], *texts: str) -> tuple[Termbase, Scripted]:
    translator = Scripted()
    translator._answers = answers
    return translator.read(window(*texts).lines, "ru", "en"), translator


READ = {"summary": "On prisms.", "terms": [{"source": "призма", "translation": "prism", "note": ""}]}


def test_a_piece_is_read_for_a_summary_and_terms() -> None:
    found, translator = read([READ], THROUGH)
    assert (found.summary, [term.translation for term in found.terms]) == ("On prisms.", ["prism"])
    assert translator._asked[0][1].endswith(THROUGH)


@pytest.mark.parametrize(
    "answer", ["no", {}, {"summary": "О призмах.", "terms": []}, EngineRefused("no")], ids=["text", "empty", "language", "refused"]
)
def test_a_piece_of_which_nothing_is_made_is_read_once_more_and_then_left(answer: Any) -> None:
    assert read([answer, READ], THROUGH)[0].summary == "On prisms."
    assert read([answer, answer], THROUGH)[0] == Termbase()


def test_a_piece_too_long_for_the_context_is_read_in_halves() -> None:
    answers = [RequestTooLong("too long"), READ, READ | {"summary": "On light."}, {"summary": "On light and prisms."}]
    found, _ = read(answers, THROUGH, THROUGH)
    assert found.summary == "On light and prisms."
    assert len(found.terms) == 1
    assert read([RequestTooLong("too long")], THROUGH)[0] == Termbase()


def test_pieces_are_as_long_as_the_context_has_room_for() -> None:
    said = window(*[THROUGH] * 200).lines
    assert [line for piece in Scripted().pieces(said) for line in piece] == list(said)
    assert max(sum(len(line.text) for line in piece) for piece in Scripted().pieces(said)) <= Scripted().room_to_read()
    assert LlamaTranslator(context=2048).room_to_read() < LlamaTranslator(context=8192).room_to_read()


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
