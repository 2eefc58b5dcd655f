"""The parameters of a lesson's flows: what each may be, and how the forms in Prefect's UI show it (`flows.deploy`).

Where a parameter is empty, the environment of the machine that the run is on decides, so that a deployment needs no editing for another
installation.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dubbing import media

MEGABYTES, HOURS = media.Limits()

_SAVED = "or a saved block as its type's slug and its name"
_TAG = {"pattern": "^[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*$"}  # for the form; which languages there are is the engines' to say

Lesson = Annotated[
    str,
    Field(
        title="Lesson",
        description="http(s) address of the recording, or its path on the machine that the run is on.",
        json_schema_extra={"minLength": 1},
    ),
]
TargetLanguage = Annotated[
    str, Field(title="Dub into", description="BCP 47 tag of the language: en, es, pt-BR, …", json_schema_extra=dict(_TAG))
]
SourceLanguage = Annotated[
    str | None,
    Field(title="Language of the lesson", description="BCP 47 tag of what is spoken; detected when empty.", json_schema_extra=dict(_TAG)),
]
Voice = Annotated[
    str | None, Field(title="Voice", description="`coursedub voices LANGUAGE` lists them; one of the lecturer's register when empty.")
]
Profile = Annotated[
    str | None,
    Field(title="Profile", description="Engines of the run: cpu, gpu, or a saved block's name; COURSEDUB_PROFILE, else cpu, when empty."),
]
Separator = Annotated[
    str | None, Field(title="Separator", description=f"In place of the profile's: spleeter, demucs, {_SAVED} (coursedub-demucs/mine).")
]
Recogniser = Annotated[
    str | None,
    Field(title="Recogniser", description=f"In place of the profile's: faster-whisper, whisperx, {_SAVED} (coursedub-whisperx/mine)."),
]
Translator = Annotated[
    str | None,
    Field(title="Translator", description=f"In place of the profile's: llama, ollama, openai, whisper (into English only), {_SAVED}."),
]
Speech = Annotated[
    str | None, Field(title="Speech", description=f"In place of the profile's: kokoro, chatterbox, chain (both in turn), {_SAVED}.")
]
Captions = Annotated[
    Literal["sentences", "words"],
    Field(title="English captions", description="Whole sentences, or the words as they are said."),
]
Loudness = Annotated[
    float | Literal["source"], Field(title="Loudness", description="LUFS of the new track, or 'source' for as loud as the original.")
]
Ducking = Annotated[float, Field(ge=0, le=60, title="Ducking", description="dB that the background goes down under speech.")]
Seed = Annotated[int, Field(ge=0, title="Seed", description="For engines that read differently each time.")]
Terms = Annotated[
    str | None,
    Field(title="Terms", description="CSV file of terms (source, translation, note) for the translator; a course shares one."),
]
GpuServer = Annotated[
    str | None,
    Field(
        title="GPU server",
        description="Does what needs a GPU, and is woken for that: a saved block's name, or the server's id in its cloud. When empty, all "
        "is done where the run is.",
    ),
]
Output = Annotated[
    str | None,
    Field(
        title="Folder for the result",
        description="When empty, NAME.LANGUAGE beside the lesson; where that is an address, in the worker's folder.",
    ),
]
Store = Annotated[
    str | None,
    Field(
        title="Store",
        description=f"Where results are kept: a folder, s3://bucket/prefix, {_SAVED} (coursedub-s3-store/default); COURSEDUB_STORE when "
        "empty.",
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
        description="What the machine costs that would compute; when empty the GPU server's price, without one COURSEDUB_COST_PER_HOUR.",
    ),
]
