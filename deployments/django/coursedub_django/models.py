"""Courses, their lessons, and the jobs that dub a lesson into a language.

A job is one attempt: it goes through the states below and ends in one of them for good. What is learnt of it comes from several places (a
webhook, polling, a person's click), in any order and more than once: `Job.moves_to` is the one rule for what may still change.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from coursedub_django import files

TAG = r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*"  # BCP 47
is_tag = RegexValidator(f"^{TAG}$", _("A language is a BCP 47 tag: en, pt-BR, …"))


def are_tags(value: str) -> None:
    if not re.fullmatch(rf"{TAG}(,\s*{TAG})*", value):
        raise ValidationError(_("Languages are BCP 47 tags with commas between them: en, pt-BR"))


def split_tags(value: str) -> list[str]:
    """
    >>> split_tags("en, pt-BR,en")
    ['en', 'pt-BR']
    """
    return list(dict.fromkeys(tag.strip() for tag in value.split(",") if tag.strip()))


class Visible(models.QuerySet[Any]):
    """Confined to what a user may see: those who may see every course all of it, others what is theirs."""

    owner = "owner"

    def visible_to(self, user: Any) -> Any:
        if not user.is_active:
            return self.none()
        if user.has_perm("coursedub.see_every_course"):
            return self
        return self.filter(**{self.owner: user.pk})


class VisibleLessons(Visible):
    owner = "course__owner"


class VisibleJobs(Visible):
    owner = "lesson__course__owner"


class Course(models.Model):
    owner = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="dubbed_courses", verbose_name=_("partner")
    )
    title = models.CharField(_("title"), max_length=200)
    source_language = models.CharField(
        _("spoken language"), max_length=35, blank=True, validators=[is_tag], help_text=_("Detected when empty.")
    )
    target_languages = models.CharField(_("dub into"), max_length=200, default="en", validators=[are_tags], help_text=_("en, es, pt-BR, …"))
    voice = models.CharField(
        _("voice"), max_length=100, blank=True, help_text=_("Of the lecturer; when empty, one of the same register or a clone.")
    )
    terms = models.CharField(
        _("terms"), max_length=500, blank=True, help_text=_("Table of terms (CSV) that the course shares, as the dubbing runs find it.")
    )
    notes = models.TextField(_("notes"), blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = Visible.as_manager()

    class Meta:
        verbose_name = _("course")
        verbose_name_plural = _("courses")
        ordering = ("-created_at", "-pk")
        permissions = (("see_every_course", _("Can see the courses of every partner")),)

    def __str__(self) -> str:
        return self.title

    @property
    def targets(self) -> list[str]:
        return split_tags(self.target_languages)


class Lesson(models.Model):
    course = models.ForeignKey(Course, on_delete=models.CASCADE, related_name="lessons", verbose_name=_("course"))
    title = models.CharField(_("title"), max_length=200)
    position = models.PositiveIntegerField(_("order"), default=0)
    file = models.FileField(_("file"), upload_to=files.upload_path, blank=True, max_length=300, validators=[files.check_upload])
    source = models.CharField(
        _("or its address"), max_length=1000, blank=True, help_text=_("http(s):// or s3:// address of the recording, in place of a file.")
    )
    source_language = models.CharField(
        _("spoken language"), max_length=35, blank=True, validators=[is_tag], help_text=_("When empty, the course's.")
    )
    voice = models.CharField(_("voice"), max_length=100, blank=True, help_text=_("When empty, the course's."))
    terms = models.CharField(_("terms"), max_length=500, blank=True, help_text=_("When empty, the course's."))
    notes = models.TextField(_("notes"), blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = VisibleLessons.as_manager()

    class Meta:
        verbose_name = _("lesson")
        verbose_name_plural = _("lessons")
        ordering = ("course", "position", "pk")
        constraints = (
            models.CheckConstraint(
                condition=(models.Q(file="") & ~models.Q(source="")) | (~models.Q(file="") & models.Q(source="")),
                name="coursedub_lesson_has_one_source",
                violation_error_message=_("A lesson has either a file or an address."),
            ),
        )

    def __str__(self) -> str:
        return self.title

    @property
    def recording(self) -> str:
        """Its address, or the name of its file, which a replaced one doesn't share."""
        return self.source or str(self.file)

    def clean(self) -> None:
        if self.source and not re.match(r"(https?|s3)://[^\s/]+/\S", self.source):
            raise ValidationError({"source": _("This isn't an http(s):// or s3:// address of a file.")})


class Job(models.Model):
    """A lesson's way into one language."""

    class State(models.TextChoices):
        STARTING = "starting", _("is being started")
        QUEUED = "queued", _("waits for its turn")
        RUNNING = "running", _("is being dubbed")
        REVIEW = "review", _("waits for a review")
        COMPLETED = "completed", _("done")
        REJECTED = "rejected", _("rejected")
        EXPIRED = "expired", _("review expired")
        FAILED = "failed", _("failed")
        CRASHED = "crashed", _("broken off")
        CANCELLED = "cancelled", _("cancelled")

    class Review(models.TextChoices):
        NONE = "none", _("none")
        TRANSLATION = "translation", _("the translation, before it is spoken")
        VOICEOVER = "voiceover", _("the finished voice-over")

    class Publication(models.TextChoices):
        NOT = "", _("not published")
        PUBLISHING = "publishing", _("is being published")
        PUBLISHED = "published", _("published")
        FAILED = "failed", _("couldn't be published")

    ACTIVE = (State.STARTING, State.QUEUED, State.RUNNING, State.REVIEW)
    FAILURES = (State.REJECTED, State.EXPIRED, State.FAILED, State.CRASHED, State.CANCELLED)
    _ENDS = (State.COMPLETED, *FAILURES)
    MOVES: Mapping[str, tuple[str, ...]] = {
        State.STARTING: (State.QUEUED, State.RUNNING, State.REVIEW, *_ENDS),
        State.QUEUED: (State.RUNNING, State.REVIEW, *_ENDS),
        State.RUNNING: (State.QUEUED, State.REVIEW, *_ENDS),
        State.REVIEW: (State.QUEUED, State.RUNNING, *_ENDS),
        # A run whose signs of life were lost counts as crashed, and may yet turn out to have gone on to its end.
        State.CRASHED: (State.COMPLETED,),
    }

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)  # also what runs and webhooks call it
    lesson = models.ForeignKey(Lesson, on_delete=models.PROTECT, related_name="jobs", verbose_name=_("lesson"))
    target_language = models.CharField(_("into"), max_length=35, validators=[is_tag])
    review = models.CharField(_("review"), max_length=20, choices=Review, default=Review.VOICEOVER)
    state = models.CharField(_("state"), max_length=20, choices=State, default=State.STARTING)
    state_at = models.DateTimeField(_("since"))  # what is older isn't news
    run_id = models.UUIDField(_("Prefect run"), null=True, blank=True, unique=True)
    idempotency_key = models.CharField(max_length=100, unique=True)
    recording = models.CharField(max_length=1000, blank=True)  # what was dubbed: the lesson's file or address at that time
    parameters = models.JSONField(default=dict)  # of the run: sent again as they are when nobody knows whether they arrived
    created_at = models.DateTimeField(_("asked for"), auto_now_add=True)
    created_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("asked for by")
    )
    started_at = models.DateTimeField(_("begun"), null=True, blank=True)
    finished_at = models.DateTimeField(_("ended"), null=True, blank=True)
    synced_at = models.DateTimeField(null=True, blank=True)  # when Prefect was asked last

    stage = models.CharField(_("stage"), max_length=50, blank=True)
    stages = models.JSONField(default=list, blank=True)  # [name, state, share] of each
    share = models.FloatField(_("progress"), default=0.0)  # of the whole, 0 to 1
    eta = models.DateTimeField(_("expected at"), null=True, blank=True)
    error = models.TextField(_("what went wrong"), blank=True)
    cost = models.DecimalField(_("cost"), max_digits=12, decimal_places=4, null=True, blank=True)
    addresses = models.JSONField(default=dict, blank=True)  # what -> where
    result = models.JSONField(default=dict, blank=True)  # what else the run said of itself: seconds, flags, lines, word_error_rate, …

    review_deadline = models.DateTimeField(_("review until"), null=True, blank=True)
    review_reminders = models.PositiveIntegerField(_("reminders"), default=0)
    answering_since = models.DateTimeField(null=True, blank=True)  # an answer is on its way

    publication = models.CharField(_("publication"), max_length=20, choices=Publication, default=Publication.NOT, blank=True)
    publish_run_id = models.UUIDField(null=True, blank=True, unique=True)
    publish_key = models.CharField(max_length=100, blank=True)
    publication_error = models.TextField(_("why it isn't published"), blank=True)
    kinescope_id = models.CharField(_("Kinescope id"), max_length=100, blank=True)
    kinescope_url = models.URLField(max_length=500, blank=True)
    published_at = models.DateTimeField(_("published"), null=True, blank=True)
    published_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", verbose_name=_("published by")
    )

    objects = VisibleJobs.as_manager()

    class Meta:
        verbose_name = _("dubbing job")
        verbose_name_plural = _("dubbing jobs")
        ordering = ("-created_at",)
        indexes = (models.Index(fields=("state", "synced_at"), name="coursedub_job_to_sync"),)
        constraints = (
            # Whoever presses the button at the same time as somebody else finds the job that is there.
            models.UniqueConstraint(
                fields=("lesson", "target_language"),
                condition=models.Q(state__in=("starting", "queued", "running", "review")),
                name="coursedub_one_active_job",
            ),
        )
        permissions = (
            ("start_job", _("Can start dubbing")),
            ("cancel_job", _("Can cancel dubbing")),
            ("review_job", _("Can review and approve")),
            ("publish_job", _("Can publish")),
        )

    def __str__(self) -> str:
        return f"{self.lesson} → {self.target_language}"

    @property
    def is_active(self) -> bool:
        return self.state in self.ACTIVE

    @property
    def has_failed(self) -> bool:
        return self.state in self.FAILURES

    @property
    def is_publishable(self) -> bool:
        return self.state == self.State.COMPLETED and self.publication in (self.Publication.NOT, self.Publication.FAILED)

    @cached_property
    def newest_answer(self) -> Answer | None:
        return self.answers.order_by("-at").first()

    def moves_to(self, state: str, at: datetime) -> bool:
        """Whether it is in this state now, by news of that time: news that is late or can't be changes nothing."""
        if state == self.state:
            return False
        late = at < self.state_at and state not in self._ENDS
        return not late and state in self.MOVES.get(self.state, ())


class Answer(models.Model):
    """What a reviewer said, kept for good."""

    class Decision(models.TextChoices):
        APPROVE = "approve", _("approved")
        REJECT = "reject", _("rejected")

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="answers", verbose_name=_("dubbing job"))
    request = models.CharField(max_length=100)  # of the run: which review it answers
    decision = models.CharField(_("decision"), max_length=20, choices=Decision)
    reason = models.TextField(_("reason"), blank=True)
    edits = models.JSONField(_("changed lines"), default=list)
    reviewer = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("reviewer")
    )
    at = models.DateTimeField(_("at"), auto_now_add=True)

    class Meta:
        verbose_name = _("review")
        verbose_name_plural = _("reviews")
        ordering = ("-at",)
        constraints = (models.UniqueConstraint(fields=("job", "request"), name="coursedub_one_answer"),)

    def __str__(self) -> str:
        return f"{self.job}: {self.get_decision_display()}"


class Delivery(models.Model):
    """A webhook that was taken. The same one doesn't count again, under whatever id it comes."""

    id = models.CharField(primary_key=True, max_length=100)  # X-Coursedub-Delivery
    signature = models.CharField(max_length=64, unique=True)
    event = models.CharField(_("event"), max_length=50)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="deliveries", verbose_name=_("dubbing job"))
    body = models.JSONField(_("content"), default=dict)
    at = models.DateTimeField(_("received"), auto_now_add=True)

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        ordering = ("-at",)

    def __str__(self) -> str:
        return f"{self.event} {self.id}"
