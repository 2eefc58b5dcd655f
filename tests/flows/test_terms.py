"""A lesson's terms, from the first run to a file that a course shares: the whole program on stand-in engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blocks.ollama import OllamaTranslator
from blocks.openai_server import OpenAITranslator
from dubbing.keys import digest
from tests.flows.stand_in_runs import CALM, LINES, Done, Lab, Run, local
from tests.stand_ins import uses

pytestmark = pytest.mark.usefixtures("prefect_server")

READING = {"STAND_INS_SETTINGS": json.dumps({"translator": {"reads_ahead": True}})}


@pytest.fixture(scope="module")
def lab(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def run(lab: Lab, folder: Path, verb: str, *options: str | Path, environment: dict[str, str] = READING) -> Done:
    place = local(folder)
    arguments = [verb, lab.lesson, "--store", place.store.folder, "--output", folder / "output", "--json", *options]
    return Run(arguments, folder / "notes", CALM, {**place.environment, **environment}).wait()


def stage(result: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [stage for stage in result["stages"] if stage["name"] == name]
    return dict(found)


def test_a_lesson_is_read_first_its_terms_are_delivered_and_a_persons_file_wins(lab: Lab, tmp_path: Path) -> None:
    first = run(lab, tmp_path, "dub").result
    assert stage(first, "terms")["state"] == "computed"
    table = tmp_path / "output" / "terms.csv"
    assert table.read_text() == "source,translation,note\nпредложение,clause,\nномер,number,\n"
    assert json.loads((tmp_path / "output" / "report.json").read_text())["about"] == "Numbered sentences."
    assert uses(tmp_path / "notes" / "uses").count(f"terms {LINES}") == 1

    course = tmp_path / "course.csv"
    course.write_text("source;translation\nпредложение;sentence\nслон;elephant\n")
    plan = run(lab, tmp_path, "plan", "--terms", course).result
    assert (stage(plan, "terms")["state"], stage(plan, "translate")["lines_to_compute"]) == ("cached", LINES)

    second = run(lab, tmp_path, "dub", "--terms", course).result
    assert (stage(second, "terms")["state"], stage(second, "translate")["lines_computed"]) == ("cached", LINES)
    assert table.read_text() == "source,translation,note\nпредложение,sentence,\nслон,elephant,\nномер,number,\n"

    course.write_text("source;translation\nпредложение;sentence\nслон;mammoth\n")  # a term that the lesson doesn't have
    third = run(lab, tmp_path, "dub", "--terms", course).result
    assert stage(third, "translate")["lines_computed"] == 0


def test_a_file_of_terms_that_is_none_is_refused_before_any_work(lab: Lab, tmp_path: Path) -> None:
    course = tmp_path / "course.csv"
    course.write_text("term,translation\nпредложение,sentence\n")
    for options, said in ((["--terms", course], "source is missing"), (["--terms", tmp_path / "nothing.csv"], "No such file")):
        done = run(lab, tmp_path, "dub", *options)
        assert done.code == 10
        assert said in done.errors and len(done.errors.splitlines()) == 1
    assert uses(tmp_path / "notes" / "uses") == []


def test_a_translator_that_does_not_read_ahead_delivers_no_terms(lab: Lab, tmp_path: Path) -> None:
    result = run(lab, tmp_path, "dub", environment={}).result
    assert "terms" not in {stage["name"] for stage in result["stages"]}
    assert "terms" not in result["files"] and not (tmp_path / "output" / "terms.csv").exists()


def test_a_translator_is_saved_in_prefect_with_the_model_that_it_falls_back_on() -> None:
    translator = OllamaTranslator(model="qwen2.5:14b", fallback=OpenAITranslator(base_url="http://gpu:8000/v1", api_key="sk-secret"))
    translator.save("course")
    loaded = OllamaTranslator.load("course")
    assert isinstance(loaded.fallback, OpenAITranslator)
    assert loaded.fallback.api_key.get_secret_value() == "sk-secret"
    assert digest(loaded) == digest(translator) != digest(OllamaTranslator(model="qwen2.5:14b"))
