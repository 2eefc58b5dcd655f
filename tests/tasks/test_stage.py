"""Stages: computed once for the same inputs, and again when anything about them differs or was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from blocks import engine as engine_module
from blocks.demucs import DemucsSeparator
from blocks.ollama import OllamaTranslator
from blocks.store import Store
from blocks.transcription import FasterWhisper
from blocks.whisperx import WhisperX
from dubbing.errors import BadSetting, BlobDamaged, DownloadFailed, SilentSource
from dubbing.lesson import Artifact, Noun
from tasks import stage as stages
from tasks.lines import line_by_line
from tasks.progress import Event, StageLog, advance, watched_by
from tasks.stage import Stage

pytestmark = pytest.mark.usefixtures("prefect_server")


class Sound(Noun):
    media: Artifact
    text: str


class Lines(Noun):
    lines: tuple[str, ...]


class Spoken(Noun):
    text: str


@pytest.fixture(autouse=True)
def own_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages made by a test are forgotten after it, and don't wait between retries."""
    monkeypatch.setattr(stages, "STAGES", dict(stages.STAGES))
    monkeypatch.setattr(stages, "RETRY_DELAYS", [0.0, 0.0])


@pytest.fixture
def runs() -> list[str]:
    return []


@pytest.fixture
def record_sound(runs: list[str]) -> Stage[Sound]:
    return sound_stage(runs, version=1)


def sound_stage(runs: list[str], version: int) -> Stage[Sound]:
    @stages.stage(version=version, returns=Sound, unkeyed=("name",))
    def record_sound(store: Store, text: str, name: str = "") -> Sound:
        runs.append(text)
        return Sound(media=store.put_bytes(text.encode(), "audio/wav"), text=text)

    return record_sound


def run(story: Callable[[], Any]) -> tuple[Any, list[dict[str, Any]]]:
    """Run a story as a flow; its result and what the stages did."""
    log = StageLog()
    with watched_by(log):
        return flow(story, name="story", validate_parameters=False)(), log.outcomes()


def test_the_same_inputs_are_computed_once(store: Store, record_sound: Stage[Sound], runs: list[str]) -> None:
    first, made = run(lambda: record_sound(store, text="a"))
    second, found = run(lambda: record_sound(store, text="a"))
    assert first == second
    assert isinstance(second, Sound)
    assert runs == ["a"]
    assert (made[0]["state"], found[0]["state"]) == ("computed", "cached")


def test_another_input_is_computed_and_the_first_stays(store: Store, record_sound: Stage[Sound], runs: list[str]) -> None:
    run(lambda: [record_sound(store, text=text) for text in "aba"])
    assert runs == ["a", "b"]


def test_names_and_the_stores_place_are_not_in_the_key(store: Store, record_sound: Stage[Sound], runs: list[str], tmp_path: Path) -> None:
    run(lambda: record_sound(store, text="a", name="one"))
    Path(store.folder).rename(tmp_path / "moved")
    run(lambda: record_sound(Store(folder=str(tmp_path / "moved")), text="a", name="two"))
    assert runs == ["a"]


def test_another_version_is_computed_again(store: Store, record_sound: Stage[Sound], runs: list[str]) -> None:
    run(lambda: record_sound(store, text="a"))
    newer = sound_stage(runs, version=2)
    run(lambda: newer(store, text="a"))
    assert runs == ["a", "a"]


def damage_file(path: Path, damage: str) -> None:
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "emptied" else -1])


@pytest.mark.parametrize("damage", ["deleted", "truncated", "emptied"])
def test_a_lost_record_is_computed_again_and_healed(store: Store, record_sound: Stage[Sound], damage: str) -> None:
    expected, _ = run(lambda: record_sound(store, text="some sound"))
    [path] = Path(store.folder).glob("records/*/*/*")
    damage_file(path, damage)
    again, outcomes = run(lambda: record_sound(store, text="some sound"))
    _, after = run(lambda: record_sound(store, text="some sound"))
    assert again == expected
    assert (outcomes[0]["state"], after[0]["state"]) == ("computed", "cached")


@stages.stage(version=1, returns=Spoken, opens=("sound",))
def listen(store: Store, sound: Sound, turn: int) -> Spoken:
    return Spoken(text=store.read_bytes(sound.media).decode())


@pytest.mark.parametrize("damage", ["deleted", "truncated", "emptied"])
def test_a_lost_blob_is_noticed_by_who_opens_it_and_its_maker_runs_again(
    store: Store, record_sound: Stage[Sound], runs: list[str], damage: str
) -> None:
    run(lambda: listen(store, sound=record_sound(store, text="some sound"), turn=1))
    [path] = Path(store.folder).glob("blobs/*/*")
    damage_file(path, damage)
    run(lambda: listen(store, sound=record_sound(store, text="some sound"), turn=1))
    assert runs == ["some sound"], "nobody opened it"
    with pytest.raises(BlobDamaged) as damaged:
        run(lambda: listen(store, sound=record_sound(store, text="some sound"), turn=2))
    store.distrust(damaged.value.sha256s)
    heard, outcomes = run(lambda: listen(store, sound=record_sound(store, text="some sound"), turn=2))
    assert heard.text == "some sound"
    assert [outcome["state"] for outcome in outcomes] == ["computed", "computed"]
    assert runs == ["some sound", "some sound"]


@stages.stage(version=1, returns=Spoken, opens=("sound",))
def listen_while_cleaned(store: Store, sound: Sound, turn: int) -> Spoken:
    path = store.path_of(sound.media)
    if turn == 1:
        path.unlink()
    return Spoken(text=path.read_text())


def test_a_blob_that_goes_while_it_is_read_is_made_again(store: Store, record_sound: Stage[Sound], runs: list[str]) -> None:
    with pytest.raises(BlobDamaged) as damaged:
        run(lambda: listen_while_cleaned(store, sound=record_sound(store, text="some sound"), turn=1))
    store.distrust(damaged.value.sha256s)
    heard, _ = run(lambda: listen_while_cleaned(store, sound=record_sound(store, text="some sound"), turn=2))
    assert heard.text == "some sound"
    assert runs == ["some sound", "some sound"]


def test_an_error_of_the_stage_itself_is_told_as_it_is(store: Store, record_sound: Stage[Sound], runs: list[str]) -> None:
    @stages.stage(version=1, returns=Spoken, opens=("sound",))
    def fail(store: Store, sound: Sound) -> Spoken:
        runs.append("fail")
        raise SilentSource(store.read_bytes(sound.media).decode())

    with pytest.raises(SilentSource, match="some sound"):
        run(lambda: fail(store, sound=record_sound(store, text="some sound")))
    assert runs == ["some sound", "fail"]


def test_a_record_with_a_changed_digit_is_not_believed(store: Store, record_sound: Stage[Sound], runs: list[str]) -> None:
    run(lambda: record_sound(store, text="take 1"))
    [path] = Path(store.folder).glob("records/*/*/*")
    path.write_bytes(path.read_bytes().replace(b"take 1", b"take 2"))
    result, _ = run(lambda: record_sound(store, text="take 1"))
    assert result.text == "take 1"
    assert runs == ["take 1", "take 1"]


def test_the_same_outcome_leaves_what_follows_cached(store: Store, runs: list[str]) -> None:
    @stages.stage(version=1, returns=Spoken)
    def tidy(store: Store, text: str) -> Spoken:
        runs.append("tidy")
        return Spoken(text=text.strip())

    @stages.stage(version=1, returns=Spoken)
    def speak(store: Store, said: Spoken) -> Spoken:
        runs.append("speak")
        return said

    run(lambda: speak(store, said=tidy(store, text="a")))
    run(lambda: speak(store, said=tidy(store, text="a ")))
    assert runs == ["tidy", "speak", "tidy"]


def test_bad_input_comes_out_as_it_is_and_is_neither_retried_nor_kept(store: Store, runs: list[str]) -> None:
    @stages.stage(version=1, returns=Spoken)
    def listen(store: Store) -> Spoken:
        runs.append("listen")
        raise SilentSource("a.mp4: silent")

    for _ in range(2):
        with pytest.raises(SilentSource, match=r"a\.mp4: silent"):
            run(lambda: listen(store))
    assert len(runs) == 2
    assert not list(Path(store.folder).glob("records/*/*/*"))


def test_a_passing_fault_is_tried_again(store: Store, runs: list[str]) -> None:
    @stages.stage(version=1, returns=Spoken)
    def fetch(store: Store) -> Spoken:
        runs.append("fetch")
        if len(runs) < 3:
            raise DownloadFailed("the line is dead")
        return Spoken(text="here")

    result, _ = run(lambda: fetch(store))
    assert result.text == "here"
    assert len(runs) == 3


def line_stage(runs: list[str], fail_at: str = "") -> Stage[Lines]:
    @stages.stage(version=1, returns=Lines, per_line=True)
    def say(store: Store, texts: list[str]) -> Lines:
        def one(text: str) -> Spoken:
            if text == fail_at:
                raise SilentSource("stopped here")
            runs.append(text)
            return Spoken(text=text.upper())

        said = line_by_line(store, "say", 1, texts, lambda text: [text], {}, lambda text: {"text": text}, one, Spoken)
        return Lines(lines=tuple(line.text for line in said))

    return say


def test_an_edited_line_costs_one_line(store: Store, runs: list[str]) -> None:
    say = line_stage(runs)
    run(lambda: say(store, texts=["a", "b", "c"]))
    result, outcomes = run(lambda: say(store, texts=["a", "B", "c"]))
    assert result.lines == ("A", "B", "C")
    assert runs == ["a", "b", "c", "B"]
    assert (outcomes[0]["lines_computed"], outcomes[0]["lines_cached"]) == (1, 2)


def test_a_cached_stage_counts_its_lines_as_cached(store: Store, runs: list[str]) -> None:
    say = line_stage(runs)
    run(lambda: say(store, texts=["a", "b"]))
    _, outcomes = run(lambda: say(store, texts=["a", "b"]))
    assert outcomes[0]["state"] == "cached"
    assert (outcomes[0]["lines_computed"], outcomes[0]["lines_cached"]) == (0, 2)


def test_what_was_said_before_a_crash_is_not_said_again(store: Store, runs: list[str]) -> None:
    with pytest.raises(SilentSource):
        run(lambda: line_stage(runs, fail_at="c")(store, texts=["a", "b", "c", "d"]))
    result, outcomes = run(lambda: line_stage(runs)(store, texts=["a", "b", "c", "d"]))
    assert result.lines == ("A", "B", "C", "D")
    assert runs == ["a", "b", "c", "d"]
    assert (outcomes[0]["lines_computed"], outcomes[0]["lines_cached"]) == (2, 2)


def test_the_same_line_twice_is_computed_once(store: Store, runs: list[str]) -> None:
    result, _ = run(lambda: line_stage(runs)(store, texts=["a", "a", "b"]))
    assert result.lines == ("A", "A", "B")
    assert runs == ["a", "b"]


def test_a_stage_tells_how_far_it_is(store: Store) -> None:
    @stages.stage(version=1, returns=Spoken)
    def work(store: Store) -> Spoken:
        for share in (0.25, 0.5, 7.0):
            advance(share)
        return Spoken(text="")

    events: list[Event] = []
    with watched_by(events.append):
        flow(lambda: work(store), name="story")()
    assert [(event.kind, event.share) for event in events] == [
        ("started", 0.0),
        ("advanced", 0.25),
        ("advanced", 0.5),
        ("advanced", 1.0),
        ("finished", 1.0),
    ]


def test_two_stages_run_beside_each_other(store: Store, runs: list[str]) -> None:
    import threading

    meeting = threading.Barrier(2, timeout=300)

    @stages.stage(version=1, returns=Spoken)
    def first(store: Store) -> Spoken:
        meeting.wait()
        return Spoken(text="first")

    @stages.stage(version=1, returns=Spoken)
    def second(store: Store) -> Spoken:
        meeting.wait()
        return Spoken(text="second")

    def story() -> Iterator[str]:
        pending = first.submit(store)
        return second(store).text, pending.result().text  # type: ignore[return-value]

    assert run(story)[0] == ("second", "first")


def test_the_first_computed_stage_names_every_package_that_the_story_lacks(
    store: Store, record_sound: Stage[Sound], runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(text: str) -> None:
        with stages.working_with([DemucsSeparator(), WhisperX(), OllamaTranslator(), FasterWhisper()], "mine"):
            record_sound(store, text=text)

    run(lambda: record_sound(store, text="said before"))

    def version_of(package: str) -> str:
        if package in ("demucs", "whisperx", "torch", "ollama"):
            raise PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(engine_module, "version", version_of)
    run(lambda: tell("said before"))
    with pytest.raises(BadSetting) as refused:
        run(lambda: tell("something new"))
    assert str(refused.value) == (
        "demucs, whisperx, ollama: not installed here: demucs, torch, whisperx, ollama; "
        "pip install 'coursedub[demucs,whisperx,ollama]' does it; `coursedub doctor --profile mine` tells what else is missing"
    )
    assert runs == ["said before"], "what is cached needs no package, and nothing else was begun"


def test_an_input_without_a_canonical_form_is_refused(store: Store, record_sound: Stage[Sound]) -> None:
    with pytest.raises(Exception, match=r"object|canonical|key"):
        run(lambda: record_sound(store, text=object()))
