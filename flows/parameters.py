"""The parameters of a lesson's flows: what each may be, and how the forms in Prefect's UI show it (`flows.deploy`).

Where a parameter is empty, the environment of the machine that the run is on decides, so that a deployment needs no editing for another
installation.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from dubbing import media

MEGABYTES, HOURS = media.Limits()

_TAG = {"pattern": "^([A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*)?$"}  # for the form; which languages there are is the engines' to say
_EMPTY = BeforeValidator(lambda value: None if value == "" else value)  # what a form sends of a field that was cleared

Lesson = Annotated[
    str,
    Field(
        title="Lesson",
        description="http(s) address of the recording, or its path on the machine that the run is on.",
        json_schema_extra={"minLength": 1},
    ),
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
Store = Annotated[
    str | None,
    _EMPTY,
    Field(
        title="Store",
        description="Where results are kept: a folder, s3://bucket/prefix, or a saved block (coursedub-s3-store/NAME). When empty "
        "COURSEDUB_STORE.",
    ),
]
MaxMegabytes = Annotated[float, Field(gt=0, title="At most MB", description="A larger lesson is refused.")]
MaxHours = Annotated[float, Field(gt=0, title="At most hours", description="A longer lesson is refused.")]
CostPerHour = Annotated[
    float | None,
    Field(
        ge=0,
        allow_inf_nan=False,
        title="Cost per hour",
        description="Of the machine that would compute. When empty the GPU server's, without one COURSEDUB_COST_PER_HOUR.",
    ),
]
