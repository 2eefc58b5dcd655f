"""The pages in Russian: nothing that the program says is left in English, and what nobody knows is shown as it is."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import string
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
from jinja2 import nodes

from dubbing import course, report
from dubbing.errors import BadSetting
from dubbing.languages import LANGUAGES
from dubbing.wording import ENGLISH, RUSSIAN, wording

ROOT = Path(__file__).parent.parent.parent
TEMPLATES = ("report.html.j2", "course.html.j2")

# Every flag and note


FLAGGING = (  # modules whose sentences come to stand on a page
    *("dubbing.verification", "dubbing.problems", "dubbing.translating", "dubbing.edits"),
    *("blocks.translator", "blocks.translation", "blocks.llama", "blocks.ollama", "blocks.openai_server"),
    *("blocks.speech", "blocks.speech_engine", "blocks.speech_chain", "blocks.chatterbox"),
    *("tasks.fit", "tasks.inspect", "tasks.render", "tasks.synthesize"),
)
COLLECTED = ("flags", "found", "doubts", "notes", "problem")  # names of what sentences are put into
REFUSALS = ("EngineRefused", "RequestTooLong")  # of an engine: the line has it as a flag then


def sentences_of(module: str) -> Iterator[ast.expr]:
    """Texts where this module puts together what is wrong: as code."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="append", value=ast.Name(id=name)), args=[what]) if name in COLLECTED:
                yield what
            case ast.Call(func=ast.Name(id=name), args=[what, *_]) if name == "Doubt" or (name in REFUSALS and "blocks." in module):
                yield what
            case ast.keyword(arg="flags", value=what):
                yield what
            case ast.Dict(keys=keys, values=values):
                yield from (what for key, what in zip(keys, values, strict=True) if isinstance(key, ast.Constant) and key.value == "flags")
            case ast.Assign(targets=[*_, ast.Name(id=name) | ast.Subscript(value=ast.Attribute(attr=name))], value=what):
                if name.removeprefix("_") in (*COLLECTED, "problems"):
                    yield what
            case ast.FunctionDef(name="problem_with" | "doubts_of"):
                yield from (one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value)
            case ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name(id="FLAG")), *_]):
                yield node


def texts_in(code: ast.expr, module: str) -> Iterator[ast.expr]:
    """The texts of an expression that stand for themselves."""
    if isinstance(code, ast.JoinedStr | ast.Constant | ast.Name):
        yield code
    elif isinstance(code, ast.BinOp | ast.BoolOp | ast.IfExp | ast.Tuple | ast.List | ast.Starred):
        for part in ast.iter_child_nodes(code):
            if isinstance(part, ast.expr):
                yield from texts_in(part, module)


def written(text: ast.expr, module: str, filling: str) -> list[str]:
    """What such code may come out as, where `filling` is in the places that are only known later."""
    if isinstance(text, ast.Name):
        value = getattr(importlib.import_module(module), text.id, None)
        return [value] if isinstance(value, str) else []
    if isinstance(text, ast.Constant):
        return [text.value] if isinstance(text.value, str) else []
    assert isinstance(text, ast.JoinedStr)
    parts: list[list[str]] = []
    for part in text.values:
        if isinstance(part, ast.Constant):
            parts.append([str(part.value)])
            continue
        assert isinstance(part, ast.FormattedValue)
        match part.value, part.format_spec:
            case ast.Name(id="FLAG"), _:
                parts.append(["edit: "])
            case ast.IfExp(body=ast.Constant(value=one), orelse=ast.Constant(value=other)), _:
                parts.append([str(one), str(other)])
            case value, _ if "name_of" in ast.unparse(value):
                parts.append(["Russian"])
            case _, ast.JoinedStr(values=[ast.Constant(value=form)]):
                parts.append([format(0.15, str(form))])
            case _:
                parts.append([filling])
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def says_nothing_itself(text: ast.expr) -> bool:
    """ "translation: {flag}", "openai: {text}": what matters is made elsewhere."""
    if not isinstance(text, ast.JoinedStr):
        return False
    own = "".join(str(part.value) for part in text.values if isinstance(part, ast.Constant))
    return not re.search(r"[a-z]", re.sub(r"^[a-z.]+: ", "", own)) and not any(
        isinstance(part, ast.FormattedValue) and ast.unparse(part.value) == "FLAG" for part in text.values
    )


def is_known(sentence: str) -> bool:
    return RUSSIAN.told(sentence) != sentence


def every_sentence() -> dict[str, bool]:
    """All that the modules may say, and whether it is known in Russian."""
    found: dict[str, bool] = {}
    for module in FLAGGING:
        for code in sentences_of(module):
            for text in texts_in(code, module):
                if not says_nothing_itself(text):
                    # A place may hold a number or a sentence.
                    for plain, quoting in zip(written(text, module, "7"), written(text, module, "it is noise"), strict=True):
                        if re.search("[a-z]", plain):
                            found[plain] = is_known(plain) or is_known(quoting)
    return found


def test_every_sentence_that_a_page_shows_is_known_in_russian() -> None:
    assert [sentence for sentence, known in every_sentence().items() if not known] == []


def test_the_sentences_are_found_where_they_are_made() -> None:
    found = every_sentence()
    assert len(found) > 40
    assert {
        "speech: 7 of 7 words heard differently",
        "timing: 0.1 s early",
        "it is not in Russian",
        "it comments instead of translating",
        "it may have lost the number 7",
        "edit: the line whose words said this one too says nothing now",
        "it is noise",
        "the clip is silent",
        "timing: 0.1 s longer than its place",
        "loudness 0.1 LUFS, asked for 0.1",
        "no thumbnail: 7",
        "translation: it is missing",
        "kokoro: nothing to say in 7",
    } <= set(found)


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("speech: 3 of 21 words heard differently", "речь: 3 из 21 слова слышно иначе"),
        ("timing: spoken 1.27 times as fast", "время: ускорено в 1,27 раза"),
        ("translation: it is not in Haitian Creole", "перевод: не тот язык (нужен: гаитянский креольский)"),
        ("speech: chatterbox: the clip is silent, 3 times", "речь: chatterbox: в записи тишина, 3 раза"),
        ("speech: kokoro: the clip is silent; chatterbox: it is noise", "речь: kokoro: в записи тишина; chatterbox: вместо речи шум"),
        ("edit: the source line under it has changed, it was “{n}; a”", "правка: исходная реплика изменилась, была «{n}; a»"),
        ("loudness -19.3 LUFS, asked for -16.0", "громкость \N{MINUS SIGN}19,3 LUFS, задано \N{MINUS SIGN}16,0"),
        (
            "chatterbox, voice lecturer, cloned from 0:12-0:22 and 2 more; kokoro, voice af_heart (chatterbox: no answer; nor later)",
            "chatterbox, голос lecturer, клон с 0:12-0:22 и ещё 2; kokoro, голос af_heart (chatterbox: no answer; nor later)",
        ),
        ("lesson.mp4: its voice-over was rejected by Anna: line 3", "lesson.mp4: дубляж отклонён (Anna): line 3"),
    ],
)
def test_a_sentence_is_told_with_what_is_in_it(sentence: str, told: str) -> None:
    assert RUSSIAN.told(sentence) == told
    assert ENGLISH.told(sentence) == sentence


@pytest.mark.parametrize("text", ["", "speech: openai: quota exceeded", "{0} {n}", "a; b", "{what}", "speech: " * 5000, " (a" * 50_000])
def test_what_nobody_knows_is_shown_as_it_is(text: str) -> None:
    assert RUSSIAN.told(text) == text


# Every text of the pages


def texts_of_code(path: Path) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    own = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "words"]
    return {text.value for code in own for text in ast.walk(code) if isinstance(text, ast.Constant) and " " in f"{text.value} "}


def test_every_text_of_the_pages_has_its_russian() -> None:
    shown = {*report._PLOT_TITLES.values(), *report._RUNG_NAMES.values(), *course.STATES, *course.STATES.values()}
    for module in ("report", "course"):
        shown |= texts_of_code(ROOT / "dubbing" / f"{module}.py") - {"rung"}
    for template in TEMPLATES:
        calls = parsed(template).find_all(nodes.Call)
        shown |= {call.args[0].value for call in calls if isinstance(call.node, nodes.Name) and call.node.name == "words"}
    assert {"Loudness", "in vain", "Only the {n} flagged", "{n} {n:line|lines}", "cost {value:.2f}", "in review"} <= shown
    assert sorted(shown - set(RUSSIAN.texts)) == []
    assert sorted(set(RUSSIAN.texts) - shown) == [], "no page says these any more"


class Leftover(HTMLParser):
    """What a template says without asking for words."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._within: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = [tag]
        self.found += [value or "" for name, value in attrs if name in ("aria-label", "alt", "title", "placeholder")]

    def handle_data(self, data: str) -> None:
        if self._within not in (["style"], ["script"]):
            self.found.append(data)


def parsed(template: str) -> nodes.Template:
    return jinja2.Environment().parse((ROOT / "dubbing" / template).read_text())


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_template_says_anything_by_itself(template: str) -> None:
    tree, leftover = parsed(template), Leftover()
    tree.body = [node for node in tree.body if not isinstance(node, nodes.AssignBlock)]  # the script
    leftover.feed("".join(data.data for data in tree.find_all(nodes.TemplateData)))
    assert [text for text in leftover.found if re.search("[A-Za-z]", text)] == []
    leftover.feed('<b title="Look">here</b>')
    assert leftover.found[-2:] == ["Look", "here"], "it would be seen"


# The tables


def places_in(template: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}


@pytest.mark.parametrize("table", [RUSSIAN.texts, RUSSIAN.sentences])
def test_a_translation_has_the_places_of_its_text_and_three_forms_of_a_noun(table: dict[str, str]) -> None:
    for text, told in table.items():
        assert places_in(told) == places_in(text), text
        forms = [form for _, _, form, _ in string.Formatter().parse(told) if form and "|" in form]
        assert all(form.count("|") == 2 for form in forms), told
        assert not re.search(r"[A-Za-z]", re.sub(r"\{[^}]*\}|LUFS|dBTP|dBFS|MP4|Matroska|JSON|CSV|kokoro", "", told)), told


def test_every_language_has_its_name() -> None:
    assert set(RUSSIAN.names) == set(LANGUAGES)
    assert len(set(RUSSIAN.names.values())) == len(LANGUAGES)
    assert (RUSSIAN.name_of("pt-BR"), ENGLISH.name_of("pt-BR"), RUSSIAN.name_of("tlh")) == ("португальский", "Portuguese", "tlh")


@pytest.mark.parametrize(
    ("n", "english", "russian"),
    [(0, "0 lines", "0 реплик"), (1, "1 line", "1 реплика"), (22, "22 lines", "22 реплики"), (111, "111 lines", "111 реплик")],
)
def test_a_noun_goes_with_its_number(n: int, english: str, russian: str) -> None:
    assert (ENGLISH("{n} {n:line|lines}", n=n), RUSSIAN("{n} {n:line|lines}", n=n)) == (english, russian)


# Which language


def test_the_language_is_the_one_asked_for_else_the_environments_else_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COURSEDUB_REPORT_LANGUAGE", raising=False)
    assert wording(None) is ENGLISH
    monkeypatch.setenv("COURSEDUB_REPORT_LANGUAGE", "ru")
    assert (wording(None), wording("en")) == (RUSSIAN, ENGLISH)
    monkeypatch.setenv("COURSEDUB_REPORT_LANGUAGE", "de")
    with pytest.raises(BadSetting, match="COURSEDUB_REPORT_LANGUAGE de: must be one of en, ru"):
        wording(None)
