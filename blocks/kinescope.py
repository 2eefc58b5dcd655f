"""Kinescope, where approved lessons are published: the client.

The same result is never uploaded twice. What was begun is noted in the store before its first byte is sent, by the file's digest and the
project (`published/…`), under a claim, so that two runs at once upload once. A large file goes up by the Tus protocol, and goes on where
the server says it is, after a cut or in another process. Of a small one, sent in one request whose answer was lost, nobody knows whether it
arrived: each upload carries a mark of its digest in its description, and is looked for by it before it is sent (again).

Requests, answers and error codes are those of Kinescope's OpenAPI document; the uploader is not in it, and is asked as its clients do.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote, urlsplit
from uuid import UUID

import httpx
from prefect.blocks.core import Block
from pydantic import BaseModel, Field, PrivateAttr, SecretStr, ValidationError, field_validator

from blocks.answers import HEADERS, NONSENSE, bounds, retry_after
from blocks.store import Store
from dubbing.errors import BadInput, BadSetting, CoursedubError, EngineRefused, QuotaReached, ServiceDown
from dubbing.keys import digest
from dubbing.languages import base_language, name_of
from dubbing.lesson import Artifact
from dubbing.services import plain_address

API, UPLOADER = "https://api.kinescope.io", "https://uploader.kinescope.io"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between two tries
LOOKS = 3  # for a video whose upload wasn't answered: a search may lag behind
CONNECT_TIMEOUT, TIMEOUT = 10.0, 60.0  # seconds
SLOWEST = 64 * 1024  # bytes per second: an upload that moves slower is a fault
LONGEST_TITLE = 255  # characters
BLOCK = 1 << 18  # bytes read and sent at a time

_ARRIVED = ("pre-processing", "processing", "done")
_UNDER_WAY = ("pending", "uploading")
_FAILED = ("error", "aborted")
_BAD_TOKEN = {100101, 100102}
_NO_RIGHT = {100103, 100107}
_QUOTA = {100106, 400207, 400208, 400209, 400210, 400211, 400212}  # a limit is reached, or something isn't paid


class Published(NamedTuple):
    """A lesson at Kinescope."""

    video: str  # its id
    address: str  # of its page
    uploaded: bool  # now, and not by an earlier run
    subtitles: tuple[str, ...]  # languages of the tracks that are there
    refused: tuple[str, ...] = ()  # why others are not


class _Note(BaseModel):
    """What the store knows of a result at Kinescope."""

    video: str = ""  # its id; empty: an upload in one request has begun, and its answer may be lost
    endpoint: str = ""  # of a Tus upload
    arrived: bool = False  # all of it
    tracks: dict[str, tuple[str, str]] = {}  # language -> id and sha256 of its subtitles


class _Later(Exception):
    """It may work if asked again."""

    def __init__(self, why: str, seconds: float = 0.0, perhaps_done: bool = False) -> None:
        super().__init__(why)
        self.seconds = seconds  # that the server asks for
        self.perhaps_done = perhaps_done  # the request may have been carried out


class _Gone(Exception):
    """There is no such thing there."""


class _Patience:
    """Waits between tries, and the end of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Something was done: the next failure is a first one."""
        self._tries, self._until = 0, 0.0

    def wait(self, fault: _Later) -> None:
        now = time.monotonic()
        if not self._tries:
            self._until = now + self._seconds
        pause = max(fault.seconds, min(FIRST_PAUSE * 2**self._tries, LONGEST_PAUSE) * random.uniform(0.5, 1))
        if now + pause > self._until:
            raise ServiceDown("kinescope", f"{fault}; tried {self._tries + 1} times")
        self._tries += 1
        time.sleep(pause)


class Kinescope(Block):
    """A project or folder at Kinescope."""

    _block_type_name = "Coursedub Kinescope"
    _block_type_slug = "coursedub-kinescope"

    token: SecretStr = Field(
        default_factory=lambda: SecretStr(os.environ.get("KINESCOPE_TOKEN", "")), description="Of the API. KINESCOPE_TOKEN when empty."
    )
    project: str = Field(description="Id of the project or folder that lessons are put into.")
    api: str = Field(default=API, description="Address of the API.")
    uploader: str = Field(default=UPLOADER, description="Address of the uploader.")
    single_megabytes: float = Field(default=50.0, ge=0, description="Up to this size a file is sent in one request.")
    part_megabytes: float = Field(default=16.0, gt=0, description="A larger one goes up in requests of this size.")
    patience: float = Field(default=300.0, ge=0, description="Seconds that faults may last which pass, without anything getting through.")
    processed_within_minutes: float = Field(default=120.0, gt=0, description="How long a video may take to be processed.")
    poll: float = Field(default=5.0, gt=0, description="Seconds between two looks at a video that is being processed.")
    settle: float = Field(default=60.0, ge=0, description="Seconds after which a video that is 'uploading' and that nobody sends is dead.")

    _http: Any = PrivateAttr(default=None)

    @field_validator("project")
    @classmethod
    def _checked_project(cls, project: str) -> str:
        return str(UUID(project))

    @field_validator("api", "uploader")
    @classmethod
    def _checked_address(cls, address: str, info: Any) -> str:
        return plain_address(info.field_name, address)

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
        self._http = None

    def check(self) -> None:
        """Refuse, before hours of work, what will be refused at their end. A service that is away now may be there then.

        Raises:
            BadSetting: there is no token, or it isn't taken.
        """
        if not self.token.get_secret_value():
            raise BadSetting("kinescope: no token (the block's, or KINESCOPE_TOKEN)")
        try:
            self._ask("GET", f"{self.api}/v1/videos", params={"per_page": "1"})
        except (_Later, _Gone, BadInput) as error:
            if isinstance(error, BadSetting):
                raise

    def publish(
        self,
        store: Store,
        video: Artifact,
        title: str,
        subtitles: Mapping[str, Artifact],
        progress: Callable[[float], None] = lambda share: None,
    ) -> Published:
        """Have a result there, processed, with this title and these subtitles; upload it if it isn't.

        Args:
            store: which keeps what was uploaded in mind.
            subtitles: WebVTT by language.
            progress: called with the share that is done. What it raises ends the wait.

        Raises:
            BadSetting: the token or the project isn't taken.
            QuotaReached: the plan is used up.
            EngineRefused: the video can't be processed.
            ServiceDown: nothing got through for `patience`, or it isn't processed in time; the next run goes on from there.
            BlobDamaged, StoreFailed
        """
        title = "".join(c for c in title if c.isprintable()).strip()[:LONGEST_TITLE] or "lesson"
        name = f"published/{digest('kinescope', self.api, self.project)[:16]}/{video.sha256}"
        with store.claimed(name, lambda: progress(0.0)):
            job = _Job(self, store, name, video, title, progress)
            uploaded = job.upload()
            facts = job.processed()
            if facts.get("title") != title:  # a header has no agreed way to say letters beyond ASCII; JSON has
                self._insist("PATCH", f"{self.api}/v1/videos/{_part(job.note.video)}", json={"title": title})
            refused = job.add_subtitles(subtitles)
        return Published(job.note.video, _link(facts), uploaded, tuple(sorted(job.note.tracks)), refused)

    # --- requests

    def _ask(self, method: str, address: str, *, seconds: float = TIMEOUT, **request: Any) -> dict[str, Any]:
        """The JSON object that is answered.

        Raises:
            _Later, _Gone, BadSetting, QuotaReached, BadInput
        """
        response = self._send(method, address, seconds=seconds, **request)
        try:
            answer: dict[str, Any] = response.json()
            answer.keys()
        except NONSENSE:
            raise _Later("an answer that makes no sense", perhaps_done=True) from None
        return answer

    def _send(
        self, method: str, address: str, *, seconds: float = TIMEOUT, headers: Mapping[str, str | bytes] | None = None, **request: Any
    ) -> httpx.Response:
        if self._http is None:
            self._http = httpx.Client(headers=HEADERS, event_hooks=bounds(), follow_redirects=False)
        # The token is for these two and nobody else, whatever address an answer names.
        known = any(_origin(address) == _origin(ours) for ours in (self.api, self.uploader))
        account = {"Authorization": f"Bearer {self.token.get_secret_value()}"} if known else {}
        timeout = httpx.Timeout(seconds, connect=CONNECT_TIMEOUT, write=TIMEOUT)
        try:
            response: httpx.Response = self._http.request(
                method, address, headers={**account, **(headers or {})}, timeout=timeout, **request
            )
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise _Later("nobody answers") from None
        except httpx.TimeoutException:
            raise _Later("no answer in time", perhaps_done=True) from None
        except (httpx.TransportError, httpx.DecodingError):
            raise _Later("the connection was cut", perhaps_done=True) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise _Later("an address that is none", perhaps_done=True) from None
        if not response.is_success:
            _refuse(response)
        return response

    def _insist(self, method: str, address: str, **request: Any) -> dict[str, Any]:
        """`_ask`, as often as it takes; for what may be asked twice."""
        patience = _Patience(self.patience)
        while True:
            try:
                return self._ask(method, address, **request)
            except _Later as fault:
                patience.wait(fault)


class _Job:
    """One result on its way."""

    def __init__(
        self, kinescope: Kinescope, store: Store, name: str, video: Artifact, title: str, progress: Callable[[float], None]
    ) -> None:
        self._there, self._store, self._name, self._artifact, self._title = kinescope, store, name, video, title
        self._progress = progress
        self._mark = video.sha256[:16]
        self._known = store.read_record(name)
        try:
            self.note = _Note.model_validate(self._known or {})
        except ValidationError:
            self.note = _Note()

    # --- the upload

    def upload(self) -> bool:
        """Returns whether a byte was sent."""
        if self.note.video:
            try:
                status = self._facts(self.note.video).get("status")
            except _Gone:  # somebody deleted it there
                status = None
            if status in _ARRIVED or (self.note.arrived and status in _UNDER_WAY):
                return False
            if self.note.endpoint and status in _UNDER_WAY:
                return self._by_tus()
            self._keep(_Note())
        if found := self._found(LOOKS if self._known else 1):
            self._keep(_Note(video=found, arrived=True))
            return False
        return self._by_tus() if self._artifact.size > self._there.single_megabytes * 1e6 else self._in_one()

    def _in_one(self) -> bool:
        there = self._there
        path = self._store.path_of(self._artifact)
        self._keep(_Note())
        headers = {
            "X-Parent-ID": there.project,
            "X-Video-Title": self._title.encode(),
            "X-Video-Description": self._description().encode(),
            "X-File-Name": f"{self._mark}.{self._ending()}",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self._artifact.size),
        }
        patience = _Patience(there.patience)
        while True:
            content = self._content(path, 0, self._artifact.size)
            try:
                answer = there._ask(
                    "POST", f"{there.uploader}/v2/video", seconds=_seconds(self._artifact.size), headers=headers, content=content
                )
                self._keep(_Note(video=_id_in(answer), arrived=True))
                return True
            except _Gone:
                raise BadSetting(f"kinescope: there is no project or folder {there.project}") from None
            except _Later as fault:
                if fault.perhaps_done and (found := self._found(LOOKS)):
                    self._keep(_Note(video=found, arrived=True))
                    return True
                patience.wait(fault)

    def _by_tus(self) -> bool:
        """Begin, or go on where the server is."""
        path = self._store.path_of(self._artifact)
        patience = _Patience(self._there.patience)
        while True:
            if not self.note.endpoint:
                self._keep(self._begun())
            try:
                offset = self._offset()
                if offset == self._artifact.size:
                    self._keep(self.note.model_copy(update={"arrived": True}))
                    return True
                self._send_part(path, offset)
                patience.renew()
            except _Gone:  # it has expired, or is complete and forgotten
                if self._arrives(self.note.video):
                    self._keep(self.note.model_copy(update={"arrived": True}))
                    return True
                self._keep(_Note())
                patience.wait(_Later("the address to send a file to is gone"))
            except _Later as fault:
                patience.wait(fault)

    def _begun(self) -> _Note:
        there = self._there
        wanted = {
            "type": "video",
            "parent_id": there.project,
            "title": self._title,
            "description": self._description(),
            "filename": f"{self._mark}.{self._ending()}",
            "filesize": self._artifact.size,
        }
        try:
            answer = there._insist("POST", f"{there.uploader}/v2/init", json=wanted)
        except _Gone:
            raise BadSetting(f"kinescope: there is no project or folder {there.project}") from None
        endpoint = _data(answer).get("endpoint")
        if not isinstance(endpoint, str) or urlsplit(endpoint).scheme not in ("http", "https"):
            raise ServiceDown("kinescope", "its answer names no address to send a file to")
        return _Note(video=_id_in(answer), endpoint=endpoint)

    def _offset(self) -> int:
        """Bytes that have arrived."""
        response = self._there._send("HEAD", self.note.endpoint, headers={"Tus-Resumable": "1.0.0"})
        offset = response.headers.get("upload-offset", "")
        if not offset.isdecimal() or int(offset) > self._artifact.size:
            raise _Later("an answer that makes no sense")
        return int(offset)

    def _send_part(self, path: Path, offset: int) -> None:
        size = min(round(self._there.part_megabytes * 1e6), self._artifact.size - offset)
        headers = {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size),
        }
        self._there._send("PATCH", self.note.endpoint, seconds=_seconds(size), headers=headers, content=self._content(path, offset, size))

    def _content(self, path: Path, start: int, size: int) -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(start)
            left = size
            while left and (block := file.read(min(BLOCK, left))):
                left -= len(block)
                yield block
                self._progress(0.7 * (start + size - left) / self._artifact.size)

    def _found(self, looks: int) -> str:
        """The id of the result that is there already, by its mark; empty where there is none that is, or will be, whole."""
        for look in range(looks):
            if look:
                time.sleep(FIRST_PAUSE * 2**look)
            wanted = {"q": self._mark, "per_page": "100", "order": "created_at.desc"}
            listed = self._there._insist("GET", f"{self._there.api}/v1/videos", params=wanted).get("data")
            mine = [one for one in listed if self._is_mine(one)] if isinstance(listed, list) else []
            for one in sorted(mine, key=lambda one: one.get("status") not in _ARRIVED):
                if isinstance(one.get("id"), str) and self._arrives(one["id"]):
                    return str(one["id"])
        return ""

    def _is_mine(self, listed: Any) -> bool:
        return (
            isinstance(listed, dict)
            and self._mark in str(listed.get("description"))
            and self._there.project in (listed.get("project_id"), listed.get("folder_id"))
            and listed.get("status") in (*_ARRIVED, *_UNDER_WAY)
        )

    def _arrives(self, video: str) -> bool:
        """Whether it is there as a whole, or is before long."""
        until = time.monotonic() + self._there.settle
        while True:
            try:
                status = self._facts(video).get("status")
            except _Gone:
                return False
            if status not in _UNDER_WAY or time.monotonic() > until:
                return status in _ARRIVED
            self._progress(0.0)
            time.sleep(self._there.poll)

    # --- what is there

    def processed(self) -> dict[str, Any]:
        """What Kinescope says of the video, once it can be watched."""
        until = time.monotonic() + 60 * self._there.processed_within_minutes
        while True:
            try:
                facts = self._facts(self.note.video)
            except _Gone:
                self._keep(_Note())
                raise EngineRefused(f"kinescope: {self._title}: video {self.note.video} was deleted there meanwhile") from None
            status = facts.get("status")
            if status == "done":
                self._progress(1.0)
                return facts
            if status in _FAILED:
                video = self.note.video
                self._keep(_Note())  # the next run may try again
                raise EngineRefused(f"kinescope: {self._title}: video {video} could not be processed ({status})")
            if time.monotonic() > until:
                minutes = self._there.processed_within_minutes
                raise ServiceDown("kinescope", f"video {self.note.video} is '{status}' after {minutes:g} minutes; the next run waits on")
            share = facts.get("progress")
            self._progress(0.7 + 0.003 * min(max(float(share), 0.0), 100.0) if isinstance(share, int | float) else 0.7)
            time.sleep(self._there.poll)

    def _facts(self, video: str) -> dict[str, Any]:
        return _data(self._there._insist("GET", f"{self._there.api}/v1/videos/{_part(video)}"))

    # --- subtitles

    def add_subtitles(self, subtitles: Mapping[str, Artifact]) -> tuple[str, ...]:
        """Have each language's track there as it is now. The old one goes after the new one is there.

        Returns:
            Why some are not.
        """
        tracks = f"{self._there.api}/v1/videos/{_part(self.note.video)}/subtitles"
        refused = []
        for language, artifact in subtitles.items():
            try:
                self._add_track(tracks, language, artifact)
            except BadSetting:
                raise
            except (_Gone, BadInput, QuotaReached) as error:  # the video is published all the same
                refused.append(f"subtitles ({language}): {str(error) or 'there is no place for them'}")
        return tuple(refused)

    def _add_track(self, tracks: str, language: str, artifact: Artifact) -> None:
        ours, sha256 = self.note.tracks.get(language, ("", ""))
        before = self._tracks(tracks)
        if sha256 == artifact.sha256 and ours in before:
            return
        # What was added under the same name by a run whose note is lost is ours too.
        told = {"language": base_language(language), "description": name_of(language)}
        old = {track for track, facts in before.items() if track == ours or facts == told}
        file = ("subtitles.vtt", self._store.read_bytes(artifact), "text/vtt")
        patience = _Patience(self._there.patience)
        while True:
            try:
                new = _id_in(self._there._ask("POST", tracks, data=told, files={"file": file}))
                break
            except _Later as fault:
                come = [track for track, facts in self._tracks(tracks).items() if track not in before and facts == told]
                if fault.perhaps_done and come:
                    new = come[0]
                    break
                patience.wait(fault)
        self._keep(self.note.model_copy(update={"tracks": {**self.note.tracks, language: (new, artifact.sha256)}}))
        for track in old:
            try:
                self._there._insist("DELETE", f"{tracks}/{_part(track)}")
            except _Gone:
                continue

    def _tracks(self, tracks: str) -> dict[str, dict[str, Any]]:
        listed = self._there._insist("GET", tracks).get("data")
        return {
            one["id"]: {"language": one.get("language"), "description": one.get("description")}
            for one in (listed if isinstance(listed, list) else ())
            if isinstance(one, dict) and isinstance(one.get("id"), str)
        }

    # --- what is known

    def _keep(self, note: _Note) -> None:
        self.note = note
        self._store.write_record(self._name, note.model_dump(mode="json"))

    def _description(self) -> str:
        return f"Dubbed by coursedub, {self._mark}"

    def _ending(self) -> str:
        return "mkv" if self._artifact.media_type.endswith("matroska") else "mp4"


def open_kinescope(reference: str) -> Kinescope:
    """Kinescope as a block saved in Prefect, or the project or folder with this id and KINESCOPE_TOKEN.

    Raises:
        BadSetting
    """
    try:
        UUID(reference)
    except ValueError:
        pass
    else:
        return Kinescope(project=reference)
    try:
        loaded: Any = Kinescope.load(reference.removeprefix(f"{Kinescope.get_block_type_slug()}/"))
    except ValueError as error:
        raise BadSetting(f"kinescope {reference}: it is no id of a project, and Prefect has no such block") from error
    assert isinstance(loaded, Kinescope)
    if not loaded.token.get_secret_value():
        loaded.token = SecretStr(os.environ.get("KINESCOPE_TOKEN", ""))
    return loaded


def _refuse(response: httpx.Response) -> NoReturn:
    """Raise what an answer means that is no success."""
    status = response.status_code
    code, message = 0, ""
    try:
        error = response.json()["error"]
        code, message = int(error["code"]), str(error["message"])[:200]
    except NONSENSE:
        pass
    said = f"{status} {message}".strip()
    refused: CoursedubError
    if status == 401 or code in _BAD_TOKEN:
        refused = BadSetting("kinescope: the token isn't taken: it is wrong, or was withdrawn")
    elif status == 402 or code in _QUOTA:
        refused = QuotaReached(f"kinescope: the plan is used up, or not paid ({said})")
    elif status == 403 or code in _NO_RIGHT:
        refused = BadSetting(f"kinescope: the token has no right to do that ({said})")
    elif status in (404, 410):
        raise _Gone
    elif status in (408, 409, 423, 425, 429):
        raise _Later(said, retry_after(response.headers))
    elif status >= 500:
        raise _Later(said, retry_after(response.headers), perhaps_done=True)
    elif status < 400:
        refused = BadSetting(f"kinescope: it sends us elsewhere ({status}): check the addresses")
    else:
        refused = BadInput(f"kinescope: it refuses: {said}")
    raise refused


def _data(answer: dict[str, Any]) -> dict[str, Any]:
    data = answer.get("data")
    return data if isinstance(data, dict) else {}


def _id_in(answer: dict[str, Any]) -> str:
    found = _data(answer).get("id")
    if not isinstance(found, str) or not found:
        raise _Later("an answer that makes no sense", perhaps_done=True)
    return found


def _link(facts: dict[str, Any]) -> str:
    link = facts.get("play_link")
    return link if isinstance(link, str) else ""


def _part(name: str) -> str:
    """Of an address's path, whatever a server called a thing."""
    return quote(name, safe="")


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc.lower()


def _seconds(size: int) -> float:
    """In which a request with so many bytes has to be answered."""
    return TIMEOUT + size / SLOWEST
