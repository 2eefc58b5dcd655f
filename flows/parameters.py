"""The parameters of a lesson's flows: what each may be, and how the forms in Prefect's UI show it (`flows.deploy`).

Where a parameter is empty, the environment of the machine that the run is on decides, so that a deployment needs no editing for another
installation.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from dubbing import media, wording

MEGABYTES, HOURS = media.Limits()

_ONE_TAG = "[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*"
_TAG = {"pattern": f"^({_ONE_TAG})?$"}  # for the form; which languages there are is the engines' to say
_EMPTY = BeforeValidator(lambda value: None if value == "" else value)  # what a form sends of a field that was cleared

Lesson = Annotated[
    str,
    Field(
        title="Lesson",
        description="Address of the recording (http, https, s3), or its path on the machine that the run is on.",
        json_schema_extra={"minLength": 1},
    ),
]
Manifest = Annotated[
    str,
    Field(
        title="Manifest",
        description="CSV or JSON file with the lessons, or a folder of them: an address (http, https, s3), or a path on the machine that "
        "the run is on.",
        json_schema_extra={"minLength": 1},
    ),
]
TargetLanguages = Annotated[
    str,
    Field(
        title="Dub into",
        description="BCP 47 tags of the languages, with commas between: en, es. A lesson's own in the manifest go before.",
        json_schema_extra={
            "minLength": 2,
            "pattern": "^[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*([ ,;]+[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*)*$",
        },
    ),
]
Course = Annotated[
    Annotated[str, Field(max_length=100)] | None,
    _EMPTY,
    Field(title="Course", description="Its name, under which voices of lecturers are kept; the manifest's when empty."),
]
CourseOutput = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Folder for the results",
        description="With a folder a lesson and the course's page. When empty, COURSE.dubbed beside the manifest; where that is an "
        "address, in the worker's folder.",
    ),
]
AtOnce = Annotated[int, Field(ge=1, le=50, title="At once", description="Lessons that are in work at a time.")]
Until = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Start no lesson after",
        description="Time of day, 06:00 say; those in work are finished. When empty, at any time.",
        json_schema_extra={"pattern": "^(([01]?[0-9]|2[0-3]):[0-5][0-9])?$"},
    ),
]
Timezone = Annotated[
    str | None, _EMPTY, Field(title="Time zone", description="Of that time: Europe/Berlin, say. COURSEDUB_TIMEZONE when empty, else UTC.")
]
TargetLanguage = Annotated[
    str, Field(title="Dub into", description="BCP 47 tag of the language: en, es, pt-BR, …", json_schema_extra={**_TAG, "minLength": 2})
]
SourceLanguage = Annotated[
    str | None,
    _EMPTY,
    Field(title="Language of the lesson", description="BCP 47 tag of what is spoken; detected when empty.", json_schema_extra={**_TAG}),
]
Voice = Annotated[
    str | None, _EMPTY, Field(title="Voice", description="Of the speech engine; when empty, one of the lecturer's register or a clone.")
]
LecturerVoice = Annotated[
    str | None,
    _EMPTY,
    Field(title="Lecturer's voice", description="Of who speaks most, where nobody is cloned; other speakers get others. A course sets it."),
]
Captions = Annotated[
    Literal["sentences", "words"],
    Field(title="English captions", description="Whole sentences, or the words as they are said."),
]
Terms = Annotated[
    str | None,
    _EMPTY,
    Field(title="Terms", description="CSV file (source, translation, note) for the translator; a course shares one."),
]
Output = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Folder for the result",
        description="When empty, NAME.LANGUAGE beside the lesson; where the lesson is an address, in the worker's folder.",
    ),
]
Profile = Annotated[
    str | None,
    _EMPTY,
    Field(title="Profile", description="Engines of the run: cpu, gpu, or a saved block's name. When empty COURSEDUB_PROFILE, else cpu."),
]
GpuServer = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="GPU server",
        description="Does what needs a GPU, and is woken for that: a saved block's name, or the server's id in its cloud. When empty, all "
        "is done where the run is.",
    ),
]
Separator = Annotated[
    str | None,
    _EMPTY,
    Field(title="Separator", description="In place of the profile's: spleeter, demucs, or a saved block (coursedub-demucs/NAME)."),
]
Recogniser = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Recogniser", description="In place of the profile's: faster-whisper, whisperx, or a saved block (coursedub-whisperx/NAME)."
    ),
]
Translator = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Translator",
        description="In place of the profile's: llama, ollama, openai, whisper (into English only), or a saved block "
        "(coursedub-ollama-translator/NAME).",
    ),
]
Speech = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Speech",
        description="In place of the profile's: kokoro, chatterbox, chain (Chatterbox, then Kokoro), or a saved block "
        "(coursedub-speech-chain/NAME).",
    ),
]
Loudness = Annotated[
    float | Literal["source"], Field(title="Loudness", description="LUFS of the new track, or source: as loud as the original.")
]
Ducking = Annotated[float, Field(ge=0, le=60, title="Ducking", description="dB that the background goes down under speech.")]
Seed = Annotated[int, Field(ge=0, title="Seed", description="For engines that read differently each time.")]
ReportLanguage = Annotated[
    wording.ReportLanguage | None,
    _EMPTY,
    Field(title="Language of the page", description="That people look at: en or ru. When empty COURSEDUB_REPORT_LANGUAGE, else en."),
]
Review = Annotated[
    Literal["none", "translation", "voiceover"],
    Field(
        title="Review",
        description="After which stage a person has to approve: the run waits, suspended, and goes on with the answer.",
    ),
]
ReviewDays = Annotated[
    float,
    Field(gt=0, le=365, title="Days for the review", description="Without an answer the run ends as Expired then. A reminder each day."),
]
Store = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Store",
        description="Where results are kept: a folder, s3://bucket/prefix, or a saved block (coursedub-s3-store/NAME). When empty "
        "COURSEDUB_STORE.",
    ),
]
PublishTo = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Publish to",
        description="Where the finished files are copied to, under uploads/: s3://bucket/prefix, a saved block "
        "(coursedub-publishing/NAME), or a folder. When empty, nowhere.",
    ),
]
Kinescope = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Kinescope",
        description="Project that the finished lesson is uploaded to: a saved block's name, or the project's id, with KINESCOPE_TOKEN.",
    ),
]
Webhook = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Webhook",
        description="Is told what becomes of the lesson: a saved block's name, or an address, with COURSEDUB_WEBHOOK_SECRET.",
    ),
]
Job = Annotated[
    Annotated[str, Field(max_length=100)] | None,
    _EMPTY,
    Field(
        title="Job", description="What whoever is told calls the lesson. When empty, the run's id.", json_schema_extra={"maxLength": 100}
    ),
]
Title = Annotated[
    Annotated[str, Field(max_length=255)] | None,
    _EMPTY,
    Field(title="Title", description="Of the published lesson. When empty, the recording's name.", json_schema_extra={"maxLength": 255}),
]
MaxMegabytes = Annotated[float, Field(gt=0, allow_inf_nan=False, title="At most MB", description="A larger lesson is refused.")]
MaxHours = Annotated[float, Field(gt=0, allow_inf_nan=False, title="At most hours", description="A longer lesson is refused.")]
CostPerHour = Annotated[
    float | None,
    Field(
        ge=0,
        allow_inf_nan=False,
        title="Cost per hour",
        description="Of the machine that would compute. When empty the GPU server's, without one COURSEDUB_COST_PER_HOUR.",
    ),
]
