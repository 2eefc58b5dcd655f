"""The command line: help that needs no manual, progress for a person, silence for a script, and a clean end on Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from dubbing import errors, weights
from flows import command_line
from flows.terminal import Progress
from tasks.progress import Event


def exit_code_of(error: type[errors.CoursedubError]) -> int:
    return error.exit_code


def all_errors(error: type[errors.CoursedubError] = errors.CoursedubError) -> list[type[errors.CoursedubError]]:
    """Those that a person may meet; what an engine raises for itself alone is a kind of one of them."""
    kinds = [below for below in error.__subclasses__() if below.__module__ == errors.__name__]
    return [error, *(found for below in kinds for found in all_errors(below))]


def test_every_kind_of_failure_has_an_exit_code_of_its_own() -> None:
    codes = [exit_code_of(error) for error in all_errors()]
    assert len(codes) == len(set(codes))
    assert not {0, 2, 130} & set(codes)


def test_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["dub", "--help"])
    text = capsys.readouterr().out
    for error in all_errors():
        assert f" {error.exit_code} " in text, error


def test_a_message_is_one_printable_line() -> None:
    assert str(errors.NotMedia("a\nb\x1b[31m.mp4: bad")) == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m.mp4: bad"


def test_wrong_usage_is_exit_code_2() -> None:
    for arguments in ([], ["dub"], ["dub", "a.mp4", "--loudness", "loud"], ["sing"]):
        with pytest.raises(SystemExit) as stopped:
            command_line.main(arguments)
        assert stopped.value.code == 2


def test_weights_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["weights", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["weights"]
    assert [row["name"] for row in listed] == [entry.name for entry in weights.catalogue()]
    assert all(row["licence"] and row["megabytes"] > 0 for row in listed)
    assert command_line.main(["weights"]) == 0
    assert "whisper-base" in capsys.readouterr().out


def test_the_weights_of_a_profile_are_those_that_its_engines_load(capsys: pytest.CaptureFixture[str]) -> None:
    for profile, wanted in {
        "cpu": {"spleeter-2stems", "whisper-base", "qwen2.5-coder-1.5b-instruct-q4_k_m", "kokoro-82m-int8", "kokoro-voices"},
        "gpu": {"htdemucs", "whisper-large-v3", "kokoro-82m-int8", "kokoro-voices"},
    }.items():
        assert command_line.main(["weights", "list", "--profile", profile, "--json"]) == 0
        listed = json.loads(capsys.readouterr().out.splitlines()[-1])["weights"]
        assert {row["name"] for row in listed} == wanted and len(listed) == len(wanted)


def test_the_weights_of_a_profile_are_fetched_each_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(weights, "folder_of", lambda name, progress=None: asked.append(name) or tmp_path / name)
    assert command_line.main(["weights", "fetch", "htdemucs", "--profile", "gpu"]) == 0
    assert sorted(asked) == ["htdemucs", "kokoro-82m-int8", "kokoro-voices", "whisper-large-v3"]
    asked.clear()
    assert command_line.main(["weights", "fetch"]) == 0
    assert sorted(asked) == sorted(entry.name for entry in weights.catalogue() if entry.built_in)


def test_unknown_weights_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["weights", "fetch", "nothing"]) == errors.BadSetting.exit_code
    assert "whisper-base" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb", [["voices", "es"], ["doctor", "--profile", "gpu"], ["plan", "x.mp4", "--speech", "chatterbox"]], ids=" ".join
)
def test_a_bad_address_in_the_environment_is_one_line(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COURSEDUB_CHATTERBOX", "http://anna:hunter2@host")
    assert command_line.main(verb) == errors.BadSetting.exit_code
    said = capsys.readouterr().err
    assert "COURSEDUB_CHATTERBOX" in said and "hunter2" not in said and len(said.splitlines()) == 1


def test_voices_are_listed_by_language(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["voices", "es"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert {"kokoro\tef_dora", "chatterbox\tlecturer"} <= set(listed) and not any(line.startswith("chain") for line in listed)
    assert command_line.main(["voices", "de"]) == 0
    assert capsys.readouterr().out.splitlines() == ["chatterbox\tlecturer", "chatterbox\tdefault"]
    assert command_line.main(["voices", "is"]) == errors.UnsupportedLanguage.exit_code


def test_progress_names_the_stage_how_far_it_is_and_what_came_of_it() -> None:
    screen = io.StringIO()
    progress = Progress(show=True)
    progress._bars.live.console = Console(file=screen, force_terminal=True, width=120)
    with progress:
        progress(Event("transcribe", "started"))
        progress(Event("transcribe", "advanced", 0.42))
        progress._bars.refresh()
        progress(Event("transcribe", "finished", 1.0, "computed", 3.0))
        progress(Event("synthesize", "finished", 1.0, "computed", 3.0, 4, 6))
    shown = screen.getvalue()
    assert "transcribe" in shown
    assert "42 %" in shown
    assert "4 lines computed, 6 cached" in shown


def test_progress_is_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(show=False) as progress:
        progress(Event("transcribe", "started"))
        progress(Event("transcribe", "finished", 1.0, "computed"))
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_ctrl_c_stops_cleanly_and_running_again_goes_on(sample: Path, tmp_path: Path) -> None:
    """Stopped as soon as the first record is there; nothing half-written is left, and what was finished is found again."""
    folder, store = tmp_path / "out", tmp_path / "store"
    command = [sys.executable, "-m", "flows.command_line", "dub", str(sample), "--translator", "whisper"]
    command += ["--output", str(folder), "--store", str(store), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    until = time.monotonic() + 600
    while not list(store.glob("records/extract_audio/*/*")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=1000)
    assert process.returncode == command_line.INTERRUPTED
    assert (out, err) == ("", "coursedub: stopped. What is finished is kept: the same command goes on from there.\n")
    assert not folder.exists()
    assert not list(store.glob("scratch/*"))

    again = subprocess.run(command, capture_output=True, text=True, timeout=1000, check=True)
    stages = {stage["name"]: stage["state"] for stage in json.loads(again.stdout.splitlines()[-1])["stages"]}
    assert stages["ingest"] == stages["extract_audio"] == "cached"
    assert stages["inspect"] == "computed"


def test_a_run_with_a_server_that_is_configured_starts_none(prefect_server: None) -> None:
    from flows.own_server import Server

    assert Server().process is None
