"""The command line: `coursedub <verb>`. Errors are one line, with an exit code for each kind."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dubbing import sources, weights
from dubbing.errors import BadManifest, BadSetting, CoursedubError, PassingFault
from dubbing.places import user_state
from dubbing.privacy import report_nothing
from dubbing.wording import WORDINGS

if TYPE_CHECKING:
    from dubbing.machine import Finding
    from tasks.progress import Event

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

_EXIT_CODES = """\
exit codes:
  0 done   2 wrong usage   10 bad input   11 source not found   12 empty or 0 seconds   13 not a media file   14 cut off   15 too large
  16 too long   17 no sound   18 silent   19 no speech   20 language not supported   21 bad setting   22 manifest with errors
  30 a fault that may pass   31 download failed   32 weights can't be fetched   33 store can't be used   34 a service is down
  35 the GPU server's cloud can't be asked   36 the database of leases can't be reached
  37 the GPU server is closed   38 it isn't ready in time   39 it needs a person
  40 engine refused   41 weights are not the pinned ones   42 lessons of a course failed   43 a service's plan is used up
  50 store damaged   130 interrupted
  1 anything else, a bug
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    report_nothing()
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
    _add_lesson_options(dub)
    publishing = _add_publishing_options(dub)
    publishing.add_argument("--title", help="what it is called there (default: the recording's name)")
    publishing.add_argument("--job", help="what the webhook calls the lesson (default: the run's id)")
    _add_report_language(dub)
    dub.add_argument("--quiet", action="store_true", help="no progress, even on a terminal")
    dub.set_defaults(run=_dub)

    course = verbs.add_parser(
        "course",
        help="dub every lesson of a course",
        description="Dub the lessons of a manifest, a few at a time: a folder with a folder a lesson, and a page that says how each "
        "stands. The manifest is a CSV or JSON file (columns: source, and optionally title, target_language, lecturer, priority, and any "
        "setting of a lesson), or a folder or bucket prefix with the recordings. A lesson that fails stops no other; running it again does "
        "what is missing.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    course.add_argument("manifest", help="CSV or JSON file, or a folder: path, or address (http, https, s3)")
    course.add_argument("--course", metavar="NAME", help="its name, under which voices of lecturers are kept (default: the manifest's)")
    course.add_argument("--at-once", type=positive, metavar="N", help="lessons in work at a time (default: 3)")
    course.add_argument("--until", metavar="HH:MM", help="start no lesson after this time of day")
    course.add_argument("--timezone", metavar="ZONE", help="of that time (default: COURSEDUB_TIMEZONE, else UTC)")
    _add_shared_options(course, output="folder for the results (default: COURSE.dubbed beside the manifest)", several=True)
    _add_publishing_options(course)
    _add_report_language(course)
    course.add_argument("--quiet", action="store_true", help="no progress, even on a terminal")
    course.set_defaults(run=_course)

    plan = verbs.add_parser(
        "plan",
        help="say what dubbing a lesson would do, why, and what it would take",
        description="What `coursedub dub` with the same options would do: every stage and line, cached or to compute, and why. Computes "
        "and writes nothing.",
    )
    _add_lesson_options(plan)
    plan.add_argument(
        "--cost-per-hour",
        type=amount,
        metavar="PRICE",
        help="what the machine costs an hour that computes (default: the GPU server's, without one COURSEDUB_COST_PER_HOUR)",
    )
    plan.add_argument("--lines", action="store_true", help="each line too")
    plan.set_defaults(run=_plan)

    edit = verbs.add_parser(
        "edit",
        help="change a line of a dubbed lesson, or list its lines",
        description="Change a line of a lesson that was dubbed before; `coursedub dub` then makes only what follows from it. "
        "Without a change: list lines and edits. The same can be done in the lesson's folder, in timeline.json or the subtitles.",
    )
    edit.add_argument("lesson", help="path of the recording, or of the folder that it was dubbed into")
    edit.add_argument("--to", metavar="LANGUAGE", help="language that it was dubbed into (default: the folder's own, else en)")
    edit.add_argument("--line", metavar="ID", default="", help="the line, by its id in timeline.json; without it --say is for all lines")
    edit.add_argument("--text", help='new translation; "" says nothing')
    edit.add_argument("--source-text", dest="new_source_text", metavar="TEXT", help="what was really said: the line is translated again")
    edit.add_argument("--voice", help='voice of this line; "" for the lesson\'s again')
    silence = edit.add_mutually_exclusive_group()
    silence.add_argument("--silent", action="store_true", default=None, help="say and show nothing here")
    silence.add_argument("--speak", dest="silent", action="store_false", help="undo --silent")
    edit.add_argument(
        "--say", action="append", metavar="WORD=RESPELLING", help='how a word is spoken: "GHz=gigahertz"; WORD= takes it back; repeatable'
    )
    edit.add_argument("--merge", type=int, nargs="?", const=1, metavar="N", help="join the line with the next one, or the next N")
    edit.add_argument("--split", metavar="TEXTS", help='divide the line; its translations with "||" between: "One. || Two."')
    edit.add_argument("--undo", metavar="WHAT", nargs="?", const="last", help="take back the last edit, or: all, an edit's id, a line's id")
    edit.add_argument("--store", metavar="STORE", help=_STORE_HELP)
    edit.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    edit.set_defaults(run=_edit)

    review = verbs.add_parser(
        "review",
        help="approve or reject what `coursedub dub --review` has come to",
        description="Answer the review that the last run of a lesson asked for; the same `coursedub dub` then goes on. Lines are changed "
        "with `coursedub edit`. Runs in Prefect that are suspended are answered there.",
    )
    review.add_argument("lesson", help="path of the recording, or of the folder that it was dubbed into")
    review.add_argument("--to", metavar="LANGUAGE", help="language that it is dubbed into (default: the folder's own, else en)")
    decision = review.add_mutually_exclusive_group(required=True)
    decision.add_argument("--approve", action="store_true", help="as it is, with the edits that there are")
    decision.add_argument("--reject", metavar="REASON", help="for others to read")
    review.add_argument("--reviewer", metavar="NAME", help="who answers (default: the user's name)")
    review.add_argument("--store", metavar="STORE", help=_STORE_HELP)
    review.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    review.set_defaults(run=_review)

    clean = verbs.add_parser(
        "clean",
        help="remove what nobody has used for a while",
        description="Remove from a store what no run has used for a while. What a lesson in use refers to stays; all that goes can "
        "be computed again. Edits stay, unless their lesson goes with --with-edits.",
    )
    clean.add_argument("--store", metavar="STORE", help=_STORE_HELP)
    clean.add_argument("--audio-days", type=amount, metavar="DAYS", default=7.0, help="age of sounds that go (default: 7)")
    clean.add_argument("--video-days", type=amount, metavar="DAYS", default=30.0, help="age of videos that go (default: 30)")
    clean.add_argument("--other-days", type=amount, metavar="DAYS", default=30.0, help="age of all else that goes (default: 30)")
    clean.add_argument("--megabytes", type=amount, metavar="MB", help="come down to this size; what is unused for longest goes first")
    clean.add_argument(
        "--lesson", action="append", metavar="LESSON", help="all of this lesson and nothing else: recording, folder or SHA-256; repeatable"
    )
    clean.add_argument("--with-edits", action="store_true", help="with --lesson: the reviewers' edits too")
    clean.add_argument("--keep", action="append", metavar="LESSON", help="nothing of this lesson; repeatable")
    clean.add_argument("--dry-run", action="store_true", help="only say what would go, and how much")
    clean.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    clean.set_defaults(run=_clean)

    copy = verbs.add_parser(
        "copy",
        help="copy one store into another",
        description="Copy a store into another: a folder, s3://bucket/prefix or a saved block, either way. What is there already stays.",
    )
    copy.add_argument("origin", help="a folder, s3://bucket/prefix or a saved block")
    copy.add_argument("target", help="likewise")
    copy.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    copy.set_defaults(run=_copy)

    voices = verbs.add_parser("voices", help="list the voices of a language")
    voices.add_argument("language", nargs="?", default="en")
    voices.set_defaults(run=_voices)

    models = verbs.add_parser("weights", help="list or fetch the models' weights", description="List the models' weights, or fetch them.")
    models.add_argument("action", nargs="?", choices=["list", "fetch"], default="list")
    models.add_argument("names", nargs="*", metavar="name", help="which (default: list all, fetch those of the built-in engines)")
    models.add_argument("--profile", metavar="NAME", help="those that the engines of a profile load: cpu, gpu, or a block saved in Prefect")
    models.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    models.set_defaults(run=_weights)

    doctor = verbs.add_parser(
        "doctor",
        help="say what is missing on this machine, and how to mend it",
        description="Look at what the pipeline needs: programs, packages, weights, disk, memory, GPU, store and services. Each is ok, "
        "missing or broken, with the command that mends it. Exit code 0: nothing stands in the way, 1: something does.",
    )
    doctor.add_argument(
        "--profile",
        metavar="NAME",
        help="whose engines are required: cpu, gpu, or a block saved in Prefect (default: COURSEDUB_PROFILE, else cpu; gpu with "
        "--can-serve)",
    )
    doctor.add_argument("--store", metavar="STORE", help=_STORE_HELP)
    doctor.add_argument("--can-serve", action="store_true", help="only whether the GPU server can take a lesson now")
    doctor.add_argument("--without-worker", action="store_true", help="with --can-serve: all but the worker")
    doctor.add_argument("--wait", type=amount, metavar="SECONDS", default=0.0, help="with --can-serve: wait for it, so long at most")
    doctor.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    doctor.set_defaults(run=_doctor)

    presign = verbs.add_parser(
        "presign",
        help="make an address at which anybody may read a published file for a while",
        description="Make an https address of a published file, at which whoever has it may read the file for a while.",
    )
    presign.add_argument("address", help="s3://bucket/key, as a run printed it")
    presign.add_argument("--seconds", type=positive, help="how long it holds (default: as the block says, else an hour)")
    presign.add_argument("--block", metavar="NAME", help="coursedub-publishing/NAME, with the account (default: of the environment)")
    presign.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    presign.set_defaults(run=_presign)

    deploy = verbs.add_parser(
        "deploy",
        help="set Prefect's server up: pools, blocks, automations, deployments",
        description="Make what Prefect's server (PREFECT_API_URL) lacks: types of blocks; saved blocks of the store and the GPU server "
        "that COURSEDUB_STORE and COURSEDUB_GPU_SERVER name; the pools; the automations that end runs which have died; the deployments. "
        "Run it again any time, and after each update: what an operator changed in Prefect's UI stays.",
    )
    deploy.add_argument("--gpu-runs", type=positive, metavar="N", help="runs at once in the pool gpu (default: as it is, 1 at first)")
    deploy.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    deploy.set_defaults(run=_deploy)

    gpu = verbs.add_parser(
        "gpu",
        help="say how the GPU server stands, hold it up, have it shelved, or see what it cost",
        description="The GPU server is woken when there is work and shelved after some idle minutes. Here a person sees how it stands, and "
        "may want it otherwise.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = gpu.add_subparsers(metavar="what", required=True, dest="what")
    actions.add_parser("status", help="its state, what is wanted of it and why, who needs it, what it cost in 24 hours")
    up = actions.add_parser("up", help="wake it, hold it up for a while, and wait until it is up")
    down = actions.add_parser("down", help="have it shelved without waiting for more work, unless somebody needs it now")
    hold = actions.add_parser("hold", help="order that it stays up, or that nobody may use it, or lift the last order; without waiting")
    hold.add_argument("order", choices=["up", "forbid", "lift"], help="stay up once it is up; go down and stay down; as without orders")
    for action in (up, hold):
        action.add_argument("--hours", type=amount, help="how long the order holds (default: up 1, forbid until it is lifted)")
    for action in (up, down):
        action.add_argument("--within", type=amount, metavar="MINUTES", help="how long to wait (default: up 20, down 60)")
    for action in (up, down, hold):
        action.add_argument("--reason", default="", help="for others to read")
    history = actions.add_parser("history", help="each time that it was up: from, to, for whom, and what it cost")
    history.add_argument("--days", type=amount, default=7.0, help="how far back (default: 7)")
    keep = actions.add_parser(
        "keep",
        help="the watchdog, for a timer: shelve it if nobody needs it, forbid it when a limit is exceeded; once, without Prefect",
        description="One pass that drives down only, with the settings of the environment alone: COURSEDUB_GPU_SERVER (its id), "
        "COURSEDUB_LEASES, OS_* or clouds.yaml, COURSEDUB_HOURS_A_DAY, COURSEDUB_COST_A_DAY, COURSEDUB_COST_PER_HOUR, "
        "COURSEDUB_GRACE_MINUTES. When the database of leases is lost, the server is shelved once no lease can hold any more.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    keep.add_argument("--notes", metavar="FILE", type=Path, help="what it remembers between passes (default: in the user's state folder)")
    for name, action in actions.choices.items():
        kinds = "its id in the cloud" if name == "keep" else "its id in the cloud, or a saved block"
        action.add_argument("--server", metavar="SERVER", help=f"{kinds} (default: COURSEDUB_GPU_SERVER)")
        action.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    gpu.set_defaults(run=_gpu)
    return parser


def _add_lesson_options(verb: argparse.ArgumentParser) -> None:
    """What shapes a dubbed lesson: the same for doing it and for planning it."""
    verb.add_argument("source", help="path or address (http, https, s3) of the lesson")
    _add_shared_options(verb, output="folder for the result (default: NAME.LANGUAGE beside the lesson)")


def _add_shared_options(verb: argparse.ArgumentParser, output: str, several: bool = False) -> None:
    """What a lesson and a course have in common."""
    into = "BCP 47 tags of the languages to dub into, with commas" if several else "BCP 47 tag of the language to dub into"
    verb.add_argument("--to", dest="target_language", metavar="LANGUAGE", help=f"{into} (default: en)")
    verb.add_argument("--from", dest="source_language", metavar="LANGUAGE", help="language of the lesson (default: detected)")
    verb.add_argument("--voice", help="voice to speak with (default: one of the lecturer's register); `coursedub voices` lists them")
    verb.add_argument(
        "--profile", metavar="NAME", help="engines: cpu, gpu, or a block saved in Prefect (default: COURSEDUB_PROFILE, else cpu)"
    )
    instead = verb.add_argument_group("engines in place of the profile's; each may be a block saved in Prefect, as slug/name")
    instead.add_argument("--separator", metavar="ENGINE", help="spleeter (cpu) or demucs (gpu)")
    instead.add_argument("--recogniser", metavar="ENGINE", help="faster-whisper (cpu) or whisperx (gpu)")
    instead.add_argument(
        "--translator",
        metavar="ENGINE",
        help="llama: a small language model, 1.1 GB (cpu); ollama: a model on an Ollama server (gpu); openai: one on any server that "
        "speaks OpenAI's protocol; whisper: into English only, no further weights, rougher",
    )
    instead.add_argument("--speech", metavar="ENGINE", help="kokoro (cpu), chatterbox, or chain: Chatterbox, then Kokoro (gpu)")
    verb.add_argument("--terms", metavar="FILE", help="CSV file of terms: source,translation,note; they win over what the translator finds")
    verb.add_argument("--captions", choices=["sentences", "words"], help="English captions by sentence (default) or by word")
    verb.add_argument("--loudness", type=loudness, metavar="LUFS", help="loudness of the new track, or 'source' (default: -16)")
    verb.add_argument("--ducking", type=float, metavar="DB", help="how far the background goes down under speech (default: 6)")
    verb.add_argument("--seed", type=int, help="for voices that read differently each time (default: 0)")
    verb.add_argument(
        "--gpu-server",
        metavar="SERVER",
        help="wake this server for what needs one: a saved block, or its id in the cloud; needs a bucket",
    )
    verb.add_argument(
        "--review",
        choices=["none", "translation", "voiceover"],
        help="stop after this until `coursedub review` has approved it (default: none)",
    )
    verb.add_argument("--output", metavar="DIR", help=output)
    verb.add_argument("--store", metavar="STORE", help=_STORE_HELP)
    verb.add_argument("--max-megabytes", type=float, metavar="MB", help="largest lesson that is taken (default: 500)")
    verb.add_argument("--max-hours", type=float, metavar="H", help="longest lesson that is taken (default: 6)")
    verb.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def _add_publishing_options(verb: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    publishing = verb.add_argument_group("publishing, when all is done")
    publishing.add_argument(
        "--publish-to", metavar="PLACE", help="copy it to s3://bucket/prefix, a saved block, or a folder, under uploads/"
    )
    publishing.add_argument(
        "--kinescope", metavar="PROJECT", help="upload it to Kinescope: a saved block, or a project's id and KINESCOPE_TOKEN"
    )
    publishing.add_argument(
        "--webhook", metavar="URL", help="tell this address: a saved block, or an address, signed with COURSEDUB_WEBHOOK_SECRET"
    )
    return publishing


def _add_report_language(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--report-language",
        choices=list(WORDINGS),
        help="of the page that people look at (default: COURSEDUB_REPORT_LANGUAGE, else en)",
    )


_STORE_HELP = "where results are kept: a folder, s3://bucket/prefix, or a saved block (default: COURSEDUB_STORE, else in the user's cache)"
_SHARED_OPTIONS = (
    *(
        "target_language",
        "source_language",
        "voice",
        "profile",
        "separator",
        "recogniser",
        "translator",
        "speech",
        "captions",
        "loudness",
        "ducking",
        "seed",
        "terms",
    ),
    *("gpu_server", "review", "output", "store", "max_megabytes", "max_hours"),
)
_DELIVERY_OPTIONS = ("publish_to", "kinescope", "title", "webhook", "job", "report_language")
_LESSON_OPTIONS = ("source", *_SHARED_OPTIONS)
_COURSE_OPTIONS = (
    "manifest",
    "course",
    "at_once",
    "until",
    "timezone",
    *_SHARED_OPTIONS,
    "publish_to",
    "kinescope",
    "webhook",
    "report_language",
)


def loudness(text: str) -> float | str:
    return text if text == "source" else float(text)


def amount(text: str) -> float:
    """A number from 0 up: days, megabytes, a price."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _lesson_options(options: argparse.Namespace) -> dict[str, Any]:
    """What was given, as the flow takes it."""
    return _given(options, options.source, _LESSON_OPTIONS)


def _given(options: argparse.Namespace, source: str, names: Sequence[str]) -> dict[str, Any]:
    if not sources.is_address(source):
        sources.local_path(source)  # refuses a name that no server could be told
    return {name: value for name in names if (value := getattr(options, name)) is not None}


@contextmanager
def _settings_checked() -> Iterator[None]:
    """What Prefect says of a parameter, as one line."""
    from prefect.exceptions import ParameterTypeError

    try:
        yield
    except ParameterTypeError as error:
        field, reason = str(error).splitlines()[-1].strip(" -").partition(": ")[::2]
        raise BadSetting(f"setting {field}: {reason}" if reason else f"settings: {field}") from error


def _run_flow(run: Callable[[], Any], options: argparse.Namespace, whole: str) -> Any:
    """Run a flow, with bars where somebody watches. It ends at Ctrl-C."""
    from flows.terminal import Progress
    from tasks.progress import watched_by

    with (
        Progress(sys.stderr.isatty() and not options.quiet, whole) as progress,
        _interruptible(progress) as watcher,
        watched_by(watcher),
        _settings_checked(),
    ):
        try:
            return run()
        except RuntimeError as error:
            if "reach API" not in str(error):
                raise
            raise PassingFault(f"the Prefect server at {os.environ.get('PREFECT_API_URL', 'its address')} can't be reached") from error


def _dub(options: argparse.Namespace) -> int:
    wishes = _lesson_options(options)
    wishes |= {name: value for name in _DELIVERY_OPTIONS if (value := getattr(options, name)) is not None}
    from flows.own_server import server

    with server() as prefect_server:
        from flows.dub_video import dub_video

        prefect_server.ready()
        result = _run_flow(lambda: dub_video(**wishes), options, "the lesson")
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    elif "review" in result:
        _show_review(options, result)
    else:
        page = os.path.join(result["output_dir"], result["files"]["page"])
        computed = sum(stage["state"] == "computed" for stage in result["stages"])
        print(f"Dubbed in {result['seconds']:.0f} s: {computed} stages computed, {len(result['stages']) - computed} cached.")
        for edit in result["edits"]:
            if edit["became"] != "applied":
                print(f"Edit {edit['edit']}: {edit['became']}. {edit['reason'] or 'It said: ' + edit['was']}")
        print(f"Watch:  {os.path.join(result['output_dir'], result['files']['video'])}")
        print(f"Review: {page}")
        for what in ("video", "voice"):
            if address := result["addresses"].get(what):
                print(f"Published: {address}")
        if result.get("kinescope"):
            print(f"Kinescope: {result['kinescope']['address'] or result['kinescope']['video']}")
    return 0


def _presign(options: argparse.Namespace) -> int:
    from blocks.publishing import presigned

    address = presigned(options.address, options.seconds, options.block)
    print(json.dumps({"address": options.address, "presigned": address}) if options.json else address)
    return 0


def _show_review(options: argparse.Namespace, result: dict[str, Any]) -> None:
    import shlex

    lesson, to = shlex.quote(options.source), shlex.quote(options.target_language or "en")
    print(f"Not finished: {result['review']['why']}.")
    if "page" in result["files"]:
        print(f"Look at:  {os.path.join(result['output_dir'], result['files']['page'])}")
    print(f"Lines:    coursedub edit {lesson} --to {to}     # and with --line, --text, … change them")
    print(f"Answer:   coursedub review {lesson} --to {to} --approve     # or --reject REASON; then dub it again")


def _review(options: argparse.Namespace) -> int:
    from blocks.store import open_store
    from flows.edit_lesson import recording_of
    from flows.review import answered_by_hand
    from tasks.review import Review

    sha256, of_folder = recording_of(options.lesson)
    language, store = options.to or of_folder or "en", open_store(options.store)
    reviewing = Review(store, sha256, language, Path(os.devnull))
    decision: Literal["approve", "reject"] = "approve" if options.approve else "reject"
    answer = answered_by_hand(store, sha256, language, decision, options.reject or "", options.reviewer or _person(), reviewing)
    if options.json:
        print(json.dumps({"lesson": sha256, "target_language": language, **answer.model_dump(mode="json")}, ensure_ascii=False))
    else:
        print("Approved: `coursedub dub` goes on." if options.approve else "Rejected.")
    return 0


def _course(options: argparse.Namespace) -> int:
    wishes = _given(options, options.manifest, _COURSE_OPTIONS)
    from flows.own_server import server

    with server() as prefect_server:
        from flows.dub_course import dub_course

        prefect_server.ready()
        try:
            result = _run_flow(lambda: dub_course(**wishes), options, "the course")
        except BadManifest as manifest:
            for error in manifest.errors:
                print(f"coursedub: {error}", file=sys.stderr)
            return manifest.exit_code
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(result["summary"])
        print(f"Page: {result['page']}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    wishes = _lesson_options(options)
    from flows.plan_lesson import plan_lesson

    with _settings_checked():
        plan = plan_lesson(cost_per_hour=options.cost_per_hour, **wishes)
    if options.json:
        print(json.dumps(plan, ensure_ascii=False))
    else:
        from flows.terminal import show_plan

        show_plan(plan, lines=options.lines)
    return 0


def _edit(options: argparse.Namespace) -> int:
    changes: dict[str, Any] = {
        name: value for name in ("text", "new_source_text", "voice", "silent", "merge") if (value := getattr(options, name)) is not None
    }
    if options.split is not None:
        changes["split"] = tuple(part.strip() for part in options.split.split("||"))
    if options.say:
        pairs = [pair.partition("=") for pair in options.say]
        if not all(equals for _, equals, _ in pairs):
            raise BadSetting('--say: give it as "WORD=RESPELLING"')
        changes["say"] = {word.strip(): respelling.strip() for word, _, respelling in pairs}
    if changes and options.undo:
        raise BadSetting("--undo: takes edits back and can't make one at once")
    from flows.edit_lesson import edit_lesson

    result = edit_lesson(options.lesson, options.to, options.store, options.line, options.undo, **changes)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
        return 0
    if changes or options.undo:
        count = len(result["edits"])
        print(f"Kept: {count} edit{'' if count == 1 else 's'}. `coursedub dub` makes what follows.")
        return 0
    from flows.terminal import show_lines

    show_lines(result)
    return 0


def _clean(options: argparse.Namespace) -> int:
    from blocks.store import open_store
    from flows.clean_store import cleaned
    from tasks.clean import Policy

    if options.with_edits and not options.lesson:
        raise BadSetting("--with-edits: only together with --lesson")
    policy = Policy(
        audio_days=options.audio_days,
        video_days=options.video_days,
        other_days=options.other_days,
        size=None if options.megabytes is None else round(options.megabytes * 1e6),
        lessons=frozenset(_lesson_digest(lesson) for lesson in options.lesson or ()),
        with_edits=options.with_edits,
        keep=frozenset(_lesson_digest(lesson) for lesson in options.keep or ()),
    )
    result = cleaned(open_store(options.store), policy, options.dry_run)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
        return 0
    for row in result["removed"]:
        print(f"{row['files']:7} {row['kind']:9} {row['bytes'] / 1e6:10.1f} MB  {row['why']}")
    verb = "would go from" if options.dry_run else "removed from"
    print(f"{result['files']} files, {result['bytes'] / 1e6:.1f} MB {verb} {result['store']}")
    return 0


def _lesson_digest(lesson: str) -> str:
    """SHA-256 of a recording that is named by path, by the folder it was dubbed into, or by its SHA-256."""
    if len(lesson) == 64 and set(lesson) <= set("0123456789abcdef"):
        return lesson
    from flows.edit_lesson import recording_of

    return recording_of(lesson)[0]


def _copy(options: argparse.Namespace) -> int:
    from blocks.copying import copy_store
    from blocks.store import open_store
    from flows.terminal import download_bar

    origin, target = open_store(options.origin), open_store(options.target)
    with download_bar(f"{origin.where} to {target.where}", show=sys.stderr.isatty()) as progress:
        copied = copy_store(origin, target, progress)
    for name in copied.damaged:
        print(f"coursedub: {name}: damaged, left out", file=sys.stderr)
    for name in copied.kept:
        print(f"coursedub: {name}: another version is in {target.where} and stays", file=sys.stderr)
    if options.json:
        print(json.dumps(copied._asdict()))
    else:
        print(f"{copied.files} files copied ({copied.bytes / 1e6:.1f} MB), {copied.skipped} were there.")
    return 0


def _voices(options: argparse.Namespace) -> int:
    from blocks.profiles import made
    from blocks.speech import SPEECH_ENGINES, SpeechChain

    engines = [made("speech", engine) for name, engine in SPEECH_ENGINES.items() if name != SpeechChain.engine_name]
    speaking = [engine for engine in engines if engine.voices(options.language)]
    if not speaking:
        SpeechChain().check(options.language, None)
    for engine in speaking:
        for voice in engine.voices(options.language):
            print(f"{engine.engine_name}\t{voice}")
    return 0


def _weights(options: argparse.Namespace) -> int:
    from flows.terminal import download_bar

    names = list(options.names)
    if options.profile:
        from blocks.profiles import profile_named

        names += profile_named(options.profile).engines().weights_names()
    chosen = [weights.find(name) for name in dict.fromkeys(names)]
    if options.action == "fetch":
        for entry in chosen or [entry for entry in weights.catalogue() if entry.built_in]:
            with download_bar(entry.name, show=sys.stderr.isatty()) as progress:
                folder = weights.folder_of(entry.name, progress)
            if not options.json:
                print(f"{entry.name}: {folder}")
    listed = [
        {"name": entry.name, "what": entry.what, "licence": entry.licence, "megabytes": round(entry.size / 1e6, 1), "present": here}
        for entry in chosen or weights.catalogue()
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


def _doctor(options: argparse.Namespace) -> int:
    if (options.without_worker or options.wait) and not options.can_serve:
        raise BadSetting("--without-worker and --wait: only together with --can-serve")
    from flows.doctor import Addresses, as_json, can_serve, doctor, show, waited

    addresses = Addresses.from_environment()
    findings: Iterable[Finding]
    if options.can_serve:
        findings = waited(lambda: can_serve(options.profile, options.store, addresses, options.without_worker), options.wait)
        verdict, good, bad = "can_serve", "This server can serve", "This server can't serve"
    else:
        findings = doctor(options.profile, options.store, addresses)
        verdict, good, bad = "ok", "This machine has all that it needs", "Not ready"
    if options.json:
        report = as_json(findings, verdict)
        print(json.dumps(report, ensure_ascii=False))
        return 0 if report[verdict] else 1
    return 0 if show(findings, good, bad) else 1


def _deploy(options: argparse.Namespace) -> int:
    from flows.deploy import deploy

    done = []
    for did in deploy(options.gpu_runs):
        done.append(did)
        if not options.json and did.did != "unchanged":
            print(f"{did.did:9} {did.what}" + (f" ({did.detail})" if did.detail else ""), flush=True)
    changes = sum(did.did in ("made", "changed") for did in done)
    if options.json:
        print(json.dumps({"changes": changes, "done": [did._asdict() for did in done]}, ensure_ascii=False))
    else:
        print(f"{changes} of {len(done)} made or changed" if changes else f"Nothing to do: {len(done)} things are there already.")
    return 0


def _gpu(options: argparse.Namespace) -> int:
    from blocks.gpu_server import open_gpu_server
    from flows import gpu

    if options.what == "keep":
        return _keep(options)
    server = open_gpu_server(options.server)
    if options.what == "history":
        past = gpu.history(server, options.days)
        print(json.dumps(past, ensure_ascii=False)) if options.json else gpu.show_history(past)
        return 0
    if options.what == "status":
        now = gpu.status(server)
    else:
        waits = options.what != "hold"
        now = gpu.order(
            server,
            options.order if options.what == "hold" else options.what,
            _person(),
            options.reason,
            getattr(options, "hours", None),
            waits=waits,
            within=options.within * 60 if waits and options.within is not None else None,
            watch=lambda made: None if options.json else print(made.decision.why, file=sys.stderr),
        )
    print(json.dumps(now, ensure_ascii=False)) if options.json else gpu.show_status(now)
    return 0


def _keep(options: argparse.Namespace) -> int:
    from blocks.gpu_server import server_with_id
    from blocks.watchdog import keep

    server = server_with_id(options.server)
    did = keep(server, options.notes or user_state() / f"watchdog-{server.server_id}.json")
    print(json.dumps({"server": server.server_id, "did": did}) if options.json else f"GPU server {server.server_id}: {did}")
    return 0


def _person() -> str:
    """Whoever gives an order."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def _quiet_prefect() -> None:
    """Prefect's own log belongs to its server; a person at a terminal reads our progress. Settings that are set stay."""
    if "PREFECT_LOGGING_LEVEL" not in os.environ:
        os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
        os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")  # of loggers that heed nothing else
        logging.disable(logging.ERROR)  # some of its loggers don't follow the setting while it ends


@contextmanager
def _interruptible(watcher: Callable[[Event], None]) -> Iterator[Callable[[Event], None]]:
    """The watcher, which after Ctrl-C stops whatever tells it something: an exception alone can get lost in a library that is just being
    imported or called back."""
    stopped = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    def watch(event: Event) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        watcher(event)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield watch
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(code: int) -> None:
    """End now, though a model may be computing in a thread that can't be interrupted. Everything in the store is whole at any moment."""
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        from blocks.store import remove_scratch

        remove_scratch()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
