"""The command line: `coursedub <verb>`. Errors are one line, with an exit code for each kind."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from dubbing import sources, weights
from dubbing.errors import BadSetting, CoursedubError, PassingFault

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

_EXIT_CODES = """\
exit codes:
  0 done   2 wrong usage   10 bad input   11 source not found   12 empty or 0 seconds   13 not a media file   14 cut off   15 too large
  16 too long   17 no sound   18 silent   19 no speech   20 language not supported   21 bad setting   30 a fault that may pass
  31 download failed   32 weights can't be fetched   33 store can't be written   40 engine refused   41 weights are not the pinned ones
  50 store damaged   130 interrupted   1 anything else, a bug
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    _quiet_prefect()
    try:
        return int(options.run(options))
    except CoursedubError as error:
        print(f"coursedub: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("coursedub: stopped. What is finished is kept: the same command goes on from there.", file=sys.stderr)
        _leave(INTERRUPTED)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coursedub",
        description="Dubs recorded lessons into another language. Everything is cached: running a command again does only what changed.",
    )
    verbs = parser.add_subparsers(metavar="verb", required=True)

    dub = verbs.add_parser(
        "dub",
        help="dub a lesson",
        description="Dub a lesson: a folder with the dubbed video, subtitles in both languages, a report and a page to look at.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    dub.add_argument("source", help="path or http(s) address of the lesson")
    dub.add_argument("--to", metavar="LANGUAGE", default="en", help="BCP 47 tag of the language to dub into (default: en)")
    dub.add_argument("--from", dest="source_language", metavar="LANGUAGE", help="language of the lesson (default: detected)")
    dub.add_argument("--voice", help="voice to speak with (default: one of the lecturer's register); `coursedub voices` lists them")
    dub.add_argument(
        "--translator",
        choices=["llama", "whisper"],
        default="llama",
        help="llama: a small language model, 1.1 GB (default); whisper: into English only, no further weights, rougher",
    )
    dub.add_argument("--captions", choices=["sentences", "words"], default="sentences", help="English captions by sentence or by word")
    dub.add_argument(
        "--loudness", type=loudness, metavar="LUFS", default=None, help="loudness of the new track, or 'source' (default: -16)"
    )
    dub.add_argument("--ducking", type=float, metavar="DB", help="how far the background goes down under speech (default: 6)")
    dub.add_argument("--seed", type=int, help="for voices that read differently each time (default: 0)")
    dub.add_argument("--output", metavar="DIR", help="folder for the result (default: NAME.LANGUAGE beside the lesson)")
    dub.add_argument("--store", metavar="DIR", help="where results are kept (default: COURSEDUB_STORE, else in the user's cache)")
    dub.add_argument("--max-megabytes", type=float, metavar="MB", help="largest lesson that is taken (default: 500)")
    dub.add_argument("--max-hours", type=float, metavar="H", help="longest lesson that is taken (default: 6)")
    dub.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    dub.add_argument("--quiet", action="store_true", help="no progress, even on a terminal")
    dub.set_defaults(run=_dub)

    voices = verbs.add_parser("voices", help="list the voices of a language")
    voices.add_argument("language", nargs="?", default="en")
    voices.set_defaults(run=_voices)

    models = verbs.add_parser("weights", help="list or fetch the models' weights", description="List the models' weights, or fetch them.")
    models.add_argument("action", nargs="?", choices=["list", "fetch"], default="list")
    models.add_argument("names", nargs="*", metavar="name", help="which to fetch (default: all)")
    models.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    models.set_defaults(run=_weights)
    return parser


def loudness(text: str) -> float | str:
    return text if text == "source" else float(text)


def _dub(options: argparse.Namespace) -> int:
    if not sources.is_address(options.source):
        sources.local_path(options.source)  # refuses a name that no server could be told

    wishes: dict[str, Any] = {
        "source": options.source,
        "target_language": options.to,
        "source_language": options.source_language,
        "voice": options.voice,
        "translator": options.translator,
        "captions": options.captions,
        "loudness": options.loudness,
        "ducking": options.ducking,
        "seed": options.seed,
        "output": options.output,
        "store": options.store,
        "max_megabytes": options.max_megabytes,
        "max_hours": options.max_hours,
    }
    from flows.own_server import server

    with server() as prefect_server:
        from prefect.exceptions import ParameterTypeError

        from flows.dub_video import dub_video
        from flows.terminal import Progress
        from tasks.stage import watched_by

        prefect_server.ready()
        with Progress(show=sys.stderr.isatty() and not options.quiet) as progress, watched_by(progress):
            try:
                result = dub_video(**{name: value for name, value in wishes.items() if value is not None})
            except ParameterTypeError as error:
                field, reason = str(error).splitlines()[-1].strip(" -").partition(": ")[::2]
                raise BadSetting(f"setting {field}: {reason}" if reason else f"settings: {field}") from error
            except RuntimeError as error:
                if "reach API" not in str(error):
                    raise
                raise PassingFault(f"the Prefect server at {os.environ.get('PREFECT_API_URL', 'its address')} can't be reached") from error
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        page = os.path.join(result["output_dir"], result["files"]["page"])
        computed = sum(stage["state"] == "computed" for stage in result["stages"])
        print(f"Dubbed in {result['seconds']:.0f} s: {computed} stages computed, {len(result['stages']) - computed} cached.")
        print(f"Watch:  {os.path.join(result['output_dir'], result['files']['video'])}")
        print(f"Review: {page}")
    return 0


def _voices(options: argparse.Namespace) -> int:
    from blocks.speech import SPEECH_ENGINES

    for name, engine in SPEECH_ENGINES.items():
        engine().check(options.language, None)
        for voice in engine().voices(options.language):
            print(f"{name}\t{voice}")
    return 0


def _weights(options: argparse.Namespace) -> int:
    from flows.terminal import download_bar

    if options.action == "fetch":
        wanted = [weights.find(name) for name in options.names] or list(weights.catalogue())
        for entry in wanted:
            with download_bar(entry.name, show=sys.stderr.isatty()) as progress:
                folder = weights.folder_of(entry.name, progress)
            if not options.json:
                print(f"{entry.name}: {folder}")
    listed = [
        {"name": entry.name, "what": entry.what, "licence": entry.licence, "megabytes": round(entry.size / 1e6, 1), "present": here}
        for entry in weights.catalogue()
        for here in [weights.is_present(entry.name)]
    ]
    if options.json:
        print(json.dumps({"weights": listed, "folder": str(weights.cache_folder())}))
    elif options.action == "list":
        width = max(len(str(row["name"])) for row in listed)
        for row in listed:
            state = "here" if row["present"] else "not fetched"
            print(f"{row['name']:{width}}  {row['megabytes']:8.1f} MB  {row['licence']:12}  {state:11}  {row['what']}")
        print(f"\nkept in {weights.cache_folder()}")
    return 0


def _quiet_prefect() -> None:
    """Prefect's own log belongs to its server; a person at a terminal reads our progress. Settings that are set stay."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def _leave(code: int) -> None:
    """End now, though a model may be computing in a thread that can't be interrupted. Everything in the store is whole at any moment."""
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
