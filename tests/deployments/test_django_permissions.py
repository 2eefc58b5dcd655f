"""Who may see and do what on the platform: partners, reviewers, administrators; and files, which are hostile until they were looked at."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from coursedub_django import jobs
from coursedub_django.files import NoLink, link_to, local_file, source_for_run, upload_path
from coursedub_django.models import Answer, Course, Delivery, Job, Lesson
from django.core import signing
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from tests.deployments.django_site import MEDIA, a_lesson, as_, clear, coursedub, person, site
from tests.deployments.played_prefect import PlayedPrefect


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with site(str(tmp_path_factory.mktemp("django") / "db.sqlite3")):
        yield


@pytest.fixture(autouse=True)
def prefect(tmp_path: Path) -> Iterator[PlayedPrefect]:
    clear()
    with PlayedPrefect() as played, coursedub(API_URL=played.api, FILES_ROOT=str(tmp_path)):
        yield played


@pytest.fixture
def theirs() -> Any:
    """A job of another partner, waiting for a review."""
    lesson = a_lesson(person("another", "partner"), title="Secret")
    state = {"state": Job.State.REVIEW, "state_at": datetime.now(UTC), "run_id": uuid4(), "synced_at": datetime.now(UTC)}
    return Job.objects.create(lesson=lesson, target_language="en", idempotency_key="k", addresses={"video": "/etc/passwd"}, **state)


def pages_of(job: Any) -> list[str]:
    return [
        reverse("admin:coursedub_course_change", args=[job.lesson.course_id]),
        reverse("admin:coursedub_course_history", args=[job.lesson.course_id]),
        reverse("admin:coursedub_lesson_change", args=[job.lesson_id]),
        reverse("admin:coursedub_lesson_delete", args=[job.lesson_id]),
        reverse("admin:coursedub_job_change", args=[job.pk]),
        reverse("admin:coursedub_job_history", args=[job.pk]),
        reverse("admin:coursedub_review", args=[job.pk]),
        reverse("admin:coursedub_file", args=[job.pk, "video"]),
    ]


def test_what_is_anothers_is_not_there(theirs: Any) -> None:
    partner = as_(person("partner", "partner"))
    for address in pages_of(theirs):
        assert partner.get(address).status_code == 404, address
    for verb in ("cancel", "retry", "publish"):
        assert partner.post(reverse("admin:coursedub_verb", args=[theirs.pk, verb])).status_code == 404
    assert partner.get(reverse("admin:coursedub_progress"), {"job": str(theirs.pk)}).json()["jobs"] == []
    for model in ("course", "lesson", "job"):
        listed = partner.get(reverse(f"admin:coursedub_{model}_changelist"))
        assert listed.status_code == 200 and "Secret" not in listed.text and "another" not in listed.text


def test_nor_can_it_be_named_in_a_form(theirs: Any) -> None:
    user = person("partner", "partner")
    partner = as_(user)
    given = {"course": theirs.lesson.course_id, "title": "mine", "position": 0, "source": "https://example.org/a.mp4"}
    answer = partner.post(reverse("admin:coursedub_lesson_add"), given)
    assert answer.status_code == 200 and Lesson.objects.count() == 1, "the course isn't among those to choose from"
    whose = {"title": "Mine", "target_languages": "en", "owner": theirs.lesson.course.owner_id}
    inline = {"lessons-TOTAL_FORMS": 0, "lessons-INITIAL_FORMS": 0}
    assert partner.post(reverse("admin:coursedub_course_add"), {**whose, **inline}).status_code == 302
    assert Course.objects.get(title="Mine").owner == user


def test_a_partner_uploads_and_sees_and_does_not_start(prefect: PlayedPrefect) -> None:
    user = person("partner", "partner")
    partner, lesson = as_(user), a_lesson(user)
    (job,) = jobs.start([lesson], ["en"], user).jobs
    page = partner.get(reverse("admin:coursedub_job_change", args=[job.pk]))
    assert page.status_code == 200 and "waits for its turn" in page.text
    assert not [verb for verb in ("cancel", "retry", "publish") if reverse("admin:coursedub_verb", args=[job.pk, verb]) in page.text]
    assert partner.get(reverse("admin:coursedub_start"), {"lesson": lesson.pk}).status_code == 403
    assert partner.get(reverse("admin:coursedub_review", args=[job.pk])).status_code == 403
    assert partner.get(reverse("admin:coursedub_file", args=[job.pk, "review-video"])).status_code == 403
    for verb in ("cancel", "retry", "publish"):
        assert partner.post(reverse("admin:coursedub_verb", args=[job.pk, verb])).status_code == 403
    assert "start_dubbing" not in partner.get(reverse("admin:coursedub_lesson_changelist")).text
    assert len(prefect.runs) == 1


def test_a_reviewer_reviews_and_nothing_else(theirs: Any, prefect: PlayedPrefect) -> None:
    reviewer = as_(person("reviewer", "reviewer"))
    prefect.runs[str(theirs.run_id)] = {"id": str(theirs.run_id), "created": datetime.now(UTC).isoformat(), "idempotency_key": "k"}
    prefect.asks(theirs.run_id, [{"id": "a", "source": "Свет", "translation": "<script>alert(1)</script>", "start": 0, "end": 1}])
    page = reviewer.get(reverse("admin:coursedub_review", args=[theirs.pk]))
    assert page.status_code == 200 and "<script>alert" not in page.text and "u003Cscript" in page.text
    for verb in ("cancel", "retry", "publish"):
        assert reviewer.post(reverse("admin:coursedub_verb", args=[theirs.pk, verb])).status_code == 403
    assert reviewer.get(reverse("admin:coursedub_start"), {"lesson": theirs.lesson_id}).status_code == 403
    assert reviewer.get(reverse("admin:coursedub_lesson_add")).status_code == 403


def test_a_reviewer_learns_why_an_answer_could_not_be_followed_and_finds_the_changes_again(prefect: PlayedPrefect) -> None:
    boss, user = person("boss", "administrator"), person("reviewer", "reviewer")
    (job,) = jobs.start([a_lesson(boss)], ["en"], boss, "translation").jobs
    review, line = reverse("admin:coursedub_review", args=[job.pk]), {"id": "a", "source": "Свет", "translation": "Light"}
    prefect.asks(job.run_id, [line])
    prefect.leaves(job.run_id, "review-request", "Please review the translation of **a**\n")
    Job.objects.update(synced_at=None)
    jobs.refresh([job])
    assert "take the answer" not in as_(user).get(review).text
    request = jobs.review_request(Job.objects.get(pk=job.pk)).id
    jobs.answer(Job.objects.get(pk=job.pk), user, "approve", request, [{"line": "a", "voice": "nobody"}])
    prefect.asks(job.run_id, [line])
    prefect.leaves(job.run_id, "review-request", "**voice nobody: there is no such voice**\n\nPlease review the translation of a")
    Job.objects.update(synced_at=None)
    jobs.refresh([Job.objects.get(pk=job.pk)])
    page = as_(user).get(review).text
    assert "take the answer. It still waits for one. (voice nobody: there is no such voice)" in page
    assert '"given": [{"line": "a", "voice": "nobody"}]' in page


def test_before_there_is_a_voice_over_the_recording_itself_is_heard(prefect: PlayedPrefect) -> None:
    boss, reviewer = person("boss", "administrator"), as_(person("reviewer", "reviewer"))
    uploaded = a_lesson(boss, source="", file=ContentFile(MEDIA, name="lesson.mp4"))
    for lesson in (uploaded, a_lesson(boss, source="https://example.org/talk.mp4")):
        (job,) = jobs.start([lesson], ["en"], boss, "translation").jobs
        prefect.asks(job.run_id, [], {"lesson": "lesson.mp4"})
        Job.objects.update(synced_at=None)
        jobs.refresh([Job.objects.get(pk=job.pk)])
        page = reviewer.get(reverse("admin:coursedub_review", args=[job.pk])).text
        heard = reverse("admin:coursedub_file", args=[job.pk, "lesson"])
        assert f'src="{heard}"' in page if lesson == uploaded else 'src="https://example.org/talk.mp4"' in page
        answer = reviewer.get(heard)
        assert b"".join(answer) == MEDIA if lesson == uploaded else answer.status_code == 404


@pytest.mark.parametrize("group", ["partner", "reviewer", "administrator"])
def test_every_page_that_changes_something_wants_a_token(group: str, theirs: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("someone", group))
    for address in (reverse("admin:coursedub_review", args=[theirs.pk]), reverse("admin:coursedub_verb", args=[theirs.pk, "cancel"])):
        assert client.post(address, {"decision": "approve"}).status_code == 403
    assert client.get(reverse("admin:coursedub_verb", args=[theirs.pk, "cancel"])).status_code in (404, 405)
    assert Job.objects.get().state == Job.State.REVIEW


def test_who_is_nobody_sees_the_way_in(theirs: Any) -> None:
    for address in pages_of(theirs):
        answer = Client().get(address)
        assert answer.status_code == 302 and "/admin/login/" in answer.url
    for address in (pages_of(theirs)[4], reverse("admin:coursedub_progress")):
        assert as_(person(f"staff{len(address)}")).get(address).status_code == 403 if "progress" in address else 404


def test_an_administrator_starts_many_at_once(prefect: PlayedPrefect) -> None:
    boss = person("boss", "administrator")
    admin, lessons = as_(boss), [a_lesson(boss, title=f"Lesson {number}") for number in range(3)]
    listed = admin.post(
        reverse("admin:coursedub_lesson_changelist"),
        {"action": "start_dubbing", "_selected_action": [one.pk for one in lessons]},
        follow=True,
    )
    assert "3 lessons" in listed.text
    address = listed.redirect_chain[-1][0]
    done = admin.post(address, {"languages": ["en", "fr"], "review": "translation"}, follow=True)
    assert "6 dubbings were started." in done.text and len(prefect.runs) == 6
    again = admin.post(address, {"languages": ["en", "fr"], "review": "translation"}, follow=True)
    assert again.text.count("in work already, asked for by boss") == 6 and len(prefect.runs) == 6
    assert admin.post(address, {"languages": ["tlh"], "review": "sometimes"}).status_code == 200 and Job.objects.count() == 6
    for query in ("", "?lesson=999", "?lesson=x", "?lesson=1&lesson=²"):
        assert admin.get(reverse("admin:coursedub_start") + query).status_code == 404


def test_a_course_is_started_as_a_whole(prefect: PlayedPrefect) -> None:
    boss = person("boss", "administrator")
    admin, lesson = as_(boss), a_lesson(boss)
    Lesson.objects.create(course=lesson.course, title="Second", source="https://example.org/b.mp4")
    chosen = {"action": "start_dubbing", "_selected_action": [lesson.course_id]}
    assert "2 lessons" in admin.post(reverse("admin:coursedub_course_changelist"), chosen, follow=True).text
    Lesson.objects.all().delete()
    assert "no lessons in it yet" in admin.post(reverse("admin:coursedub_course_changelist"), chosen, follow=True).text


def test_what_has_happened_can_be_looked_at_and_not_changed(theirs: Any) -> None:
    boss, reviewer = person("boss", "administrator"), person("reviewer", "reviewer")
    said = Answer.objects.create(job=theirs, request="r", decision="approve", reviewer=reviewer, edits=[{"line": "a", "text": "x"}])
    came = Delivery.objects.create(id="d", signature="s", event="video_completed", job=theirs)
    for kind, one in (("answer", said), ("delivery", came)):
        change = reverse(f"admin:coursedub_{kind}_change", args=[one.pk])
        assert "Secret" in as_(boss).get(reverse(f"admin:coursedub_{kind}_changelist")).text
        assert as_(boss).get(change).status_code == 200 and as_(boss).post(change, {"event": "x"}).status_code == 403
        assert as_(person(f"partner of {kind}", "partner")).get(change).status_code in (403, 404)


def test_an_administrator_deletes_a_job_with_what_was_said_of_it(theirs: Any) -> None:
    Answer.objects.create(job=theirs, request="r", decision="approve")
    Delivery.objects.create(id="d", signature="s", event="video_completed", job=theirs)
    boss, delete = as_(person("boss", "administrator")), reverse("admin:coursedub_job_delete", args=[theirs.pk])
    assert boss.post(delete, {"post": "yes"}).status_code == 403, "it is in work"
    Job.objects.update(state=Job.State.COMPLETED)
    assert as_(person("reviewer", "reviewer")).post(delete, {"post": "yes"}).status_code == 403
    assert boss.post(delete, {"post": "yes"}).status_code == 302
    assert not Job.objects.exists() and not Answer.objects.exists() and not Delivery.objects.exists()


def test_pages_say_what_went_wrong(prefect: PlayedPrefect) -> None:
    boss = person("boss", "administrator")
    (job,) = jobs.start([a_lesson(boss)], ["en"], boss).jobs
    prefect.enters(job.run_id, "FAILED", message="Flow run encountered an exception: DownloadFailed: a.mp4 can't be reached <b>now</b>")
    page = as_(boss).get(reverse("admin:coursedub_job_change", args=[job.pk]))
    assert (
        "a.mp4 can&#x27;t be reached &lt;b&gt;now" in page.text and "Trying again usually helps" in page.text and "Try again" in page.text
    )


def test_pages_are_there_while_prefect_is_not(theirs: Any) -> None:
    boss = person("boss", "administrator")
    with coursedub(API_URL="http://127.0.0.1:9/api", TRIES=1):
        Job.objects.update(synced_at=None)
        page = as_(boss).get(reverse("admin:coursedub_job_change", args=[theirs.pk]))
        assert page.status_code == 200 and "can&#x27;t be reached just now" in page.text
        answer = as_(boss).get(reverse("admin:coursedub_review", args=[theirs.pk]), follow=True)
        assert "can&#x27;t be reached just now" in answer.text


def test_in_russian() -> None:
    boss = person("boss", "administrator")
    (job,) = jobs.start([a_lesson(boss)], ["en"], boss).jobs
    page = as_(boss).get(reverse("admin:coursedub_job_change", args=[job.pk]), headers={"Accept-Language": "ru"})
    assert "ждёт очереди" in page.text and "Отменить" in page.text


# --- Files


def test_an_upload_is_what_it_says() -> None:
    user = person("partner", "partner")
    course = a_lesson(user).course
    good = {"course": course.pk, "title": "One", "position": 1}

    def upload(name: str, content: bytes) -> Any:
        return as_(user).post(reverse("admin:coursedub_lesson_add"), {**good, "file": SimpleUploadedFile(name, content)})

    for name, content, why in (
        ("page.mp4", b"<html><script>alert(1)</script>", "named like a recording"),
        ("script.html", MEDIA, "video or sound file"),
        ("lesson", MEDIA, "video or sound file"),
        ("empty.mp4", b"", "empty"),
    ):
        assert why in upload(name, content).text and Lesson.objects.count() == 1
    with coursedub(MAX_MEGABYTES=0.0001):
        assert "at most" in upload("large.mp4", MEDIA).text
    assert upload("lesson.mp4", MEDIA).status_code == 302
    assert Lesson.objects.get(title="One").file.name.endswith("/lesson.mp4")
    both = {**good, "source": "https://example.org/a.mp4", "file": SimpleUploadedFile("a.mp4", MEDIA)}
    assert "either a file or an address" in as_(user).post(reverse("admin:coursedub_lesson_add"), both).text
    assert "either a file or an address" in as_(user).post(reverse("admin:coursedub_lesson_add"), good).text
    odd = {**good, "source": "file:///etc/passwd"}
    assert "must begin with https://" in as_(user).post(reverse("admin:coursedub_lesson_add"), odd).text


def test_a_partner_has_runs_fetch_nothing_that_isnt_public() -> None:
    """Runs fetch it with their own rights: another partner's recording in the bucket, a host inside, a file of the worker."""
    user, boss = person("partner", "partner"), person("boss", "administrator")
    course = Course.objects.create(owner=user, title="Physics", target_languages="en")
    good = {"course": course.pk, "title": "One", "position": 0}

    def told(who: Any, **more: str) -> str:
        return str(as_(who).post(reverse("admin:coursedub_lesson_add"), {**good, **more}).text)

    for source in ("s3://lessons/another/1.mp4", "http://10.0.0.1/1.mp4", "HTTPS://example.org/1.mp4"):
        assert "must begin with https://" in told(user, source=source), source
    with coursedub(PARTNER_SOURCES=["https://media.example.org/"]):
        assert "must begin with https://media" in told(user, source="https://example.org/1.mp4")
        told(user, source="https://media.example.org/1.mp4", terms="/etc/passwd")
    told(boss, source="s3://lessons/another/1.mp4", terms="s3://lessons/terms.csv")
    assert list(Lesson.objects.order_by("pk").values_list("source", "terms")) == [
        ("https://media.example.org/1.mp4", ""),
        ("s3://lessons/another/1.mp4", "s3://lessons/terms.csv"),
    ]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd.mp4", "passwd.mp4"),
        ("..\\..\\boot.MP4", "boot.mp4"),
        ("-rf; rm $(x) `y`.mp4", "rf-rm-x-y.mp4"),
        ("Урок 1\u202e.mp4", "Урок-1.mp4"),
        ("\x00\n.mp4", "lesson.mp4"),
        ("a" * 500 + ".webm", "a" * 80 + ".webm"),
    ],
)
def test_hostile_names(name: str, kept: str) -> None:
    folder, _, last = upload_path(None, name).rpartition("/")
    assert last == kept and folder.startswith("lessons/") and ".." not in folder
    assert upload_path(None, name) != upload_path(None, name)


def test_a_run_fetches_an_upload_by_its_link(tmp_path: Path) -> None:
    lesson = a_lesson(person("partner", "partner"), source="", file=ContentFile(MEDIA, name="Урок 1.mp4"))
    link = source_for_run(lesson)
    assert link.startswith("http://127.0.0.1:8000/dubbing/upload/")
    path = link.removeprefix("http://127.0.0.1:8000")
    answer = Client().get(path)
    assert b"".join(answer) == MEDIA and answer["Content-Type"] == "video/mp4" and "sandbox" in answer["Content-Security-Policy"]
    part = Client().get(path, headers={"Range": "bytes=4-7"})
    assert (part.status_code, b"".join(part), part["Content-Range"]) == (206, b"ftyp", f"bytes 4-7/{len(MEDIA)}")
    assert b"".join(Client().get(path, headers={"Range": "bytes=-2"})) == MEDIA[-2:]
    assert Client().get(path, headers={"Range": "bytes=9999-"}).status_code == 416
    assert Client().get(path.replace("upload/", "upload/x")).status_code == 404
    forged = signing.dumps([lesson.pk, lesson.file.name], salt="another")
    assert Client().get(f"/dubbing/upload/{forged}/a.mp4").status_code == 404
    with coursedub(UPLOAD_LINK_DAYS=-1, REVIEW_DAYS=0):
        assert Client().get(path).status_code == 410
    with coursedub(UPLOAD_LINK_DAYS=0, REVIEW_DAYS=7):
        assert Client().get(path).status_code == 200, "a run that was under review for a week"
    lesson.file = ContentFile(MEDIA, name="other.mp4")
    lesson.save()
    assert Client().get(path).status_code == 410, "the file was replaced"
    with coursedub(UPLOADS="path"):
        assert source_for_run(lesson) == lesson.file.path


def test_links_lead_into_the_bucket_only() -> None:
    account = {
        "endpoint_url": "https://s3.example.org",
        "region_name": "eu-1",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
    }
    with coursedub(PUBLISH_TO="s3://lessons/platform", S3=account):
        link = link_to("s3://lessons/platform/uploads/renders/a.en.mp4", "урок.mp4")
        assert link.startswith("https://s3.example.org/lessons/platform/uploads/renders/a.en.mp4?") and "X-Amz-Expires=3600" in link
        assert "secret" not in link
        for address in (
            "s3://lessons/other/a",
            "s3://others/platform/a",
            "s3://lessons/platform/../x",
            "https://example.org/a",
            "/etc/passwd",
            "",
        ):
            with pytest.raises(NoLink, match="outside"):
                link_to(address)
    with pytest.raises(NoLink, match="outside"):
        link_to("s3://lessons/a")


def test_local_files_are_those_of_one_folder(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(MEDIA)
    (tmp_path / "away").symlink_to("/etc/passwd")
    assert local_file(str(tmp_path / "a.mp4")) == tmp_path / "a.mp4"
    for address in ("/etc/passwd", str(tmp_path / "away"), str(tmp_path / ".." / "a.mp4"), str(tmp_path), str(tmp_path / "gone")):
        with pytest.raises(NoLink):
            local_file(address)
    with coursedub(FILES_ROOT=""), pytest.raises(NoLink, match="isn't published"):
        local_file(str(tmp_path / "a.mp4"))


def test_a_result_is_shown_to_whose_it_is(tmp_path: Path, prefect: PlayedPrefect) -> None:
    user = person("partner", "partner")
    (job,) = jobs.start([a_lesson(user)], ["en"], user).jobs
    (tmp_path / "index.html").write_text("<script>alert(1)</script>")
    prefect.results_in(job.run_id, addresses={"page": str(tmp_path / "index.html"), "video": "/etc/passwd"})
    partner = as_(user)
    assert "index.html" in partner.get(reverse("admin:coursedub_job_change", args=[job.pk])).text
    page = partner.get(reverse("admin:coursedub_file", args=[job.pk, "page"]))
    assert page.status_code == 200 and page["Content-Security-Policy"].startswith("sandbox")
    for what in ("video", "nothing", "..", "review-video"):
        assert partner.get(reverse("admin:coursedub_file", args=[job.pk, what])).status_code in (403, 404)


def test_examples_in_docstrings() -> None:
    for name in ("files", "models", "jobs", "admin", "prefect_api"):
        done = doctest.testmod(importlib.import_module(f"coursedub_django.{name}"))
        assert done.failed == 0
