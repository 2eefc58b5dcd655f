"""The admin: courses and lessons, starting jobs, following them, reviewing, publishing.

Every query goes through `visible_to`, so that a partner who guesses what belongs to another gets the same 404 as for what doesn't exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar
from urllib.parse import urlsplit
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Count, QuerySet
from django.forms.widgets import Script
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from coursedub_django import jobs
from coursedub_django.conf import settings
from coursedub_django.files import NoLink, link_to, local_file
from coursedub_django.forms import LessonForm, StartForm, language_name
from coursedub_django.models import Answer, Course, Delivery, Job, Lesson
from coursedub_django.prefect_api import AnswerRefused, PrefectError
from coursedub_django.views import served

AT_ONCE = 100  # jobs that a page may follow
_FILES_KEPT = 300  # seconds that a review's addresses are remembered

STAGE_NAMES = {
    "ingest": _("Taking the recording in"),
    "extract_audio": _("Taking its sound out"),
    "separate": _("Separating voice and background"),
    "transcribe": _("Recognising the words"),
    "translate": _("Translating"),
    "synthesize": _("Speaking"),
    "fit": _("Placing the lines"),
    "subtitles": _("Writing subtitles"),
    "mix": _("Mixing"),
    "render": _("Putting the video together"),
    "inspect": _("Checking the result"),
    "gpu_server": _("Working on the GPU server"),
    "publish": _("Copying the files"),
    "kinescope": _("Uploading to Kinescope"),
}
STAGE_STATES = {
    "waiting": _("to do"),
    "running": _("in work"),
    "done": _("done"),
    "cached": _("done before"),
    "failed": _("failed"),
}
# In the order in which they are shown; subtitles in each language come after the voice.
FILE_NAMES = {
    "video": _("Dubbed video"),
    "voice": _("New soundtrack"),
    "srt": _("Subtitles"),
    "vtt": _("Subtitles"),
    "ass": _("Subtitles"),
    "page": _("Report"),
    "timeline": _("Lines"),
    "report": _("Report as data"),
    "thumbnail": _("Thumbnail"),
}


class Confined(admin.ModelAdmin):
    """An admin that shows a user what is theirs."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        found: QuerySet[Any] = super().get_queryset(request).visible_to(request.user)  # type: ignore[attr-defined]
        return found

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponse:
        raise Http404


def not_of_partners(request: HttpRequest) -> Sequence[str]:
    """Fields that name files which runs read with their own rights."""
    return () if request.user.has_perm("coursedub.see_every_course") else ("terms",)


class LessonInline(admin.TabularInline):
    model = Lesson
    extra = 0
    formfield_overrides: ClassVar = {models.CharField: {"widget": AdminTextInputWidget(attrs={"size": 28, "class": ""})}}
    fields = ("position", "title", "file", "source")
    show_change_link = True
    form = LessonForm

    def get_formset(self, request: HttpRequest, obj: Any = None, **options: Any) -> Any:
        formset = super().get_formset(request, obj, **options)
        formset.form.request = request  # a class made for this request
        return formset


@admin.register(Course)
class CourseAdmin(Confined):
    list_display = ("title", "owner", "target_languages", "lesson_count", "created_at")
    search_fields = ("title",)
    formfield_overrides: ClassVar = {models.TextField: {"widget": AdminTextareaWidget(attrs={"rows": 3})}}
    inlines = (LessonInline,)
    actions = ("start_dubbing",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("owner").annotate(lesson_total=Count("lessons"))

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        """Whose course it is decides who sees it: a partner can't give one away."""
        return () if request.user.has_perm("coursedub.see_every_course") else ("owner",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return not_of_partners(request)

    def save_model(self, request: HttpRequest, obj: Course, form: Any, change: bool) -> None:
        if obj.owner_id is None:
            obj.owner_id = request.user.pk
        super().save_model(request, obj, form, change)

    def has_start_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("coursedub.start_job"))

    @admin.action(description=_("Start dubbing…"), permissions=["start"])
    def start_dubbing(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        lessons = list(Lesson.objects.visible_to(request.user).filter(course__in=queryset))
        if not lessons:
            messages.warning(request, gettext("There are no lessons in it yet."))
            return None
        return to_start(lessons)

    @admin.display(description=_("lessons"), ordering="lesson_total")
    def lesson_count(self, course: Any) -> int:
        return int(course.lesson_total)


@admin.register(Lesson)
class LessonAdmin(Confined):
    list_display = ("title", "course", "position", "standing")
    list_filter = (("course", admin.RelatedOnlyFieldListFilter),)
    search_fields = ("title", "course__title")
    actions = ("start_dubbing",)
    change_form_template = "coursedub_django/lesson_form.html"
    form = LessonForm
    fieldsets = (
        (None, {"fields": ("course", "title", "position", "file", "source")}),
        (_("Different from the course"), {"fields": ("source_language", "voice", "terms", "notes"), "classes": ("collapse",)}),
    )

    class Media:
        css: ClassVar = {"all": ("coursedub_django/coursedub.css",)}

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        form = super().get_form(request, obj, change, **options)
        form.request = request  # a class made for this request
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return not_of_partners(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("course").prefetch_related("jobs")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        if db_field.name == "course":
            options["queryset"] = Course.objects.visible_to(request.user)
        return super().formfield_for_foreignkey(db_field, request, **options)

    def get_urls(self) -> list[URLPattern]:
        return [path("start/", self.admin_site.admin_view(self.start_view), name="coursedub_start"), *super().get_urls()]

    def has_start_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("coursedub.start_job"))

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        lesson = self.get_object(request, object_id)
        found = list(lesson.jobs.select_related("created_by")) if lesson else []
        context = {"jobs": [shown(job) for job in found], "may_start": self.has_start_permission(request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description=_("dubbing"))
    def standing(self, lesson: Lesson) -> SafeString | str:
        newest: dict[str, Job] = {}
        for job in lesson.jobs.all():  # newest first
            newest.setdefault(job.target_language, job)
        return SafeString(" ".join(badge(job, job.target_language) for job in newest.values())) or "—"

    @admin.action(description=_("Start dubbing…"), permissions=["start"])
    def start_dubbing(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return to_start(queryset)

    def start_view(self, request: HttpRequest) -> HttpResponse:
        """One page, one click: languages and review for one or many lessons."""
        if not self.has_start_permission(request):
            raise PermissionDenied
        given = request.GET.getlist("lesson")
        wanted = {int(one) for one in given if one.isascii() and one.isdecimal() and len(one) < 19}
        lessons = list(Lesson.objects.visible_to(request.user).filter(pk__in=wanted).select_related("course"))
        if not lessons or len(lessons) != len(wanted):
            raise Http404
        form = StartForm(lessons, request.POST if request.method == "POST" else None)
        if form.is_valid():
            started = jobs.start(lessons, form.cleaned_data["languages"], request.user, form.cleaned_data["review"])
            self._tell(request, started)
            if len(started.jobs) == 1:
                return redirect("admin:coursedub_job_change", started.jobs[0].pk)
            return redirect("admin:coursedub_job_changelist")
        return page(request, self.admin_site, "start.html", gettext("Start dubbing"), form=form, lessons=lessons)

    def _tell(self, request: HttpRequest, started: jobs.Started) -> None:
        failed = [job for job in started.jobs if job.has_failed]
        waiting = [job for job in started.jobs if job.state == Job.State.STARTING]
        good = len(started.jobs) - len(failed) - len(waiting)
        if good:
            said = ngettext("%d dubbing was started.", "%d dubbings were started.", good) % good
            messages.success(request, said)
        for job in (*waiting, *failed):
            messages.warning(request, f"{job}: {job.error}")
        for job in started.there_already:
            messages.info(request, gettext("%(job)s: in work already, asked for by %(who)s.") % {"job": job, "who": job.created_by or "—"})
        for job in started.jobs:
            self.log_addition(request, job, [{"added": {"name": str(Job._meta.verbose_name), "object": str(job)}}])


@admin.register(Job)
class JobAdmin(Confined):
    list_display = ("lesson_title", "into", "shown_state", "progress", "paid", "asked_for")
    list_display_links = ("lesson_title",)
    list_filter = ("state", "publication", "target_language", ("lesson__course", admin.RelatedOnlyFieldListFilter))
    search_fields = ("lesson__title", "lesson__course__title")
    date_hierarchy = "created_at"
    actions = ("publish_jobs", "retry_jobs")
    list_per_page = 50

    class Media:
        css: ClassVar = {"all": ("coursedub_django/coursedub.css",)}
        js = (Script("coursedub_django/progress.js", defer=True),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("lesson__course", "created_by", "published_by")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj and obj.is_active)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """With a job goes what was said of it, which by itself nobody may delete."""
        shown_objects, counts, needed, protected = super().get_deleted_objects(objs, request)
        return shown_objects, counts, needed - {Answer._meta.verbose_name, Delivery._meta.verbose_name}, protected

    def has_publish_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("coursedub.publish_job"))

    def has_start_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("coursedub.start_job"))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("progress/", view(self.progress_view), name="coursedub_progress"),
            path("<uuid:pk>/review/", view(self.review_view), name="coursedub_review"),
            path("<uuid:pk>/file/<str:what>/", view(self.file_view), name="coursedub_file"),
            path("<uuid:pk>/do/<str:verb>/", view(require_POST(self.verb_view)), name="coursedub_verb"),
            *super().get_urls(),
        ]

    # --- the list

    @admin.display(description=_("lesson"), ordering="lesson__title")
    def lesson_title(self, job: Job) -> SafeString:
        return format_html('{} <span class="cd-quiet">{}</span>', job.lesson.title, job.lesson.course.title)

    @admin.display(description=_("into"), ordering="target_language")
    def into(self, job: Job) -> str:
        return language_name(job.target_language)

    @admin.display(description=_("state"), ordering="state")
    def shown_state(self, job: Job) -> SafeString:
        return badge(job)

    @admin.display(description=_("progress"), ordering="share")
    def progress(self, job: Job) -> SafeString:
        return format_html(
            '<progress class="cd-progress" data-cd-share max="1" value="{}"></progress><span data-cd-eta>{}</span> '
            '<span data-cd-stage class="cd-quiet">{}</span>',
            job.share,
            eta_of(job),
            str(STAGE_NAMES.get(job.stage, "")) if job.state == Job.State.RUNNING else "",
        )

    @admin.display(description=_("asked for"), ordering="created_at")
    def asked_for(self, job: Job) -> SafeString:
        when = date_format(timezone.localtime(job.created_at), "j M H:i")
        return format_html('{} <span class="cd-quiet">{}</span>', when, job.created_by or "—")

    @admin.display(description=_("cost"), ordering="cost")
    def paid(self, job: Job) -> SafeString:
        return format_html("<span data-cd-cost>{}</span>", cost_of(job))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": gettext("Dubbing jobs"), **(extra_context or {})})

    @admin.action(description=_("Publish"), permissions=["publish"])
    def publish_jobs(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._each(request, queryset, lambda job: jobs.publish(job, request.user), gettext("published, or on its way"))

    @admin.action(description=_("Try again"), permissions=["start"])
    def retry_jobs(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._each(request, queryset, lambda job: jobs.try_again(job, request.user), gettext("started again"))

    def _each(self, request: HttpRequest, queryset: Iterable[Job], do: Callable[[Job], object], said: str) -> None:
        for job in queryset:
            try:
                do(job)
            except (jobs.NotPossible, PrefectError) as error:
                messages.error(request, f"{job}: {error}")
            else:
                self.log_change(request, job, said)
                messages.success(request, f"{job}: {said}")

    # --- one job

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        job = self.get_object(request, object_id)
        if job is None:
            raise Http404
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        problem = jobs.refresh([job])
        job.refresh_from_db()
        context = {
            "job": job,
            "shown": shown(job),
            "stages": stages_of(job),
            "files": files_of(job),
            "facts": facts_of(job),
            "answers": job.answers.select_related("reviewer"),
            "problem": problem,
            "advice": advice(job.error) if job.has_failed else "",
            "may": self._may(request, job),
        }
        return page(request, self.admin_site, "job.html", str(job), **context)

    def _may(self, request: HttpRequest, job: Job) -> dict[str, bool]:
        user = request.user
        return {
            "review": job.state == Job.State.REVIEW and user.has_perm("coursedub.review_job"),
            "cancel": job.is_active and user.has_perm("coursedub.cancel_job"),
            "retry": not job.is_active and user.has_perm("coursedub.start_job"),
            "publish": job.is_publishable and user.has_perm("coursedub.publish_job"),
        }

    def verb_view(self, request: HttpRequest, pk: UUID, verb: str) -> HttpResponse:
        """Cancel, try again, publish."""
        needed = {"cancel": "cancel_job", "retry": "start_job", "publish": "publish_job"}.get(verb)
        if needed is None:
            raise Http404
        job = self._job(request, pk)
        if not request.user.has_perm(f"coursedub.{needed}"):
            raise PermissionDenied
        try:
            if verb == "cancel":
                jobs.cancel(job)
                messages.success(request, gettext("It is being cancelled."))
            elif verb == "publish":
                jobs.publish(job, request.user)
                messages.success(request, job.get_publication_display())
            else:
                job = jobs.try_again(job, request.user)
                messages.success(request, gettext("Started again: what was done already is not done twice."))
            self.log_change(request, job, verb)
        except (jobs.NotPossible, PrefectError) as error:
            messages.error(request, str(error))
        return redirect("admin:coursedub_job_change", job.pk)

    def _job(self, request: HttpRequest, pk: UUID) -> Job:
        job: Job = get_object_or_404(self.get_queryset(request), pk=pk)
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        return job

    def progress_view(self, request: HttpRequest) -> JsonResponse:
        """How the jobs of an open page stand."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        wanted = []
        for one in request.GET.getlist("job")[:AT_ONCE]:
            try:
                wanted.append(UUID(one))
            except ValueError:
                raise Http404 from None
        found = list(self.get_queryset(request).filter(pk__in=wanted))
        problem = jobs.refresh(found)
        fresh = self.get_queryset(request).filter(pk__in=wanted)
        return JsonResponse({"jobs": [shown(job) for job in fresh], "problem": problem})

    def file_view(self, request: HttpRequest, pk: UUID, what: str) -> HttpResponseBase:
        """A file of a job, or of its review (`review-…`), by a link that works for an hour and is made when it is asked for."""
        job = self._job(request, pk)
        if what == "lesson":
            return self._lesson_file(request, job)
        if what.startswith("review-"):
            if not request.user.has_perm("coursedub.review_job"):
                raise PermissionDenied
            address = self._review_files(job).get(what.removeprefix("review-"), "")
        else:
            address = job.addresses.get(what, "")
        if not address:
            raise Http404
        name = PurePosixPath(urlsplit(address).path).name
        as_attachment = "save" in request.GET
        try:
            if address.startswith("s3://"):
                return redirect(link_to(address, name if as_attachment else ""))
            file = local_file(address)
        except NoLink as error:
            return HttpResponse(str(error), status=404, content_type="text/plain; charset=utf-8")
        return served(request, file.open("rb"), file.name, as_attachment)

    def _lesson_file(self, request: HttpRequest, job: Job) -> HttpResponseBase:
        """The uploaded recording, as it is now."""
        file = job.lesson.file
        if not file or not file.storage.exists(file.name):
            raise Http404
        return served(request, file.open("rb"), PurePosixPath(file.name).name)

    def _review_files(self, job: Job) -> Mapping[str, str]:
        key = f"coursedub-review-{job.run_id}"
        found: Mapping[str, str] | None = cache.get(key)
        if found is None:
            try:
                found = dict(jobs.review_request(job).files)
            except (jobs.NotPossible, PrefectError):
                return {}
            cache.set(key, found, _FILES_KEPT)
        return found

    # --- review

    def review_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        job = self._job(request, pk)
        if not request.user.has_perm("coursedub.review_job"):
            raise PermissionDenied
        given: dict[str, Any] = {"edits": [], "reason": ""}
        if request.method == "POST":
            given["reason"] = request.POST.get("reason", "")
            try:
                given["edits"] = json.loads(request.POST.get("edits") or "[]")
                decision, asked = request.POST.get("decision", ""), request.POST.get("request", "")
                jobs.answer(job, request.user, decision, asked, given["edits"], given["reason"])
            except ValueError:
                messages.error(request, gettext("The changes can't be read. Load the page again."))
            except (jobs.NotPossible, PrefectError) as error:
                messages.error(request, str(error))
            else:
                said = gettext("Approved: the run goes on.") if decision == "approve" else gettext("Rejected.")
                self.log_change(request, job, said)
                messages.success(request, said)
                return redirect("admin:coursedub_job_change", job.pk)
        try:
            asked_for = jobs.review_request(job)
        except (jobs.NotPossible, PrefectError) as error:
            jobs.refresh([job])
            messages.warning(request, str(error))
            return redirect("admin:coursedub_job_change", job.pk)
        lines = asked_for.lines
        if asked_for.trouble and request.method == "GET":
            messages.error(request, str(AnswerRefused(asked_for.trouble)))
            given["edits"] = job.newest_answer.edits if job.newest_answer else []
        voices = dict.fromkeys([*(line.voice for line in lines if line.voice), *settings().voices.get(job.target_language, ())])
        media = {what: reverse("admin:coursedub_file", args=[job.pk, f"review-{what}"]) for what in asked_for.files}
        if "original_audio" not in media:  # before there is a voice-over
            uploaded = reverse("admin:coursedub_file", args=[job.pk, "lesson"])
            media["original_audio"] = uploaded if job.lesson.file else job.lesson.source
        data = {
            "request": asked_for.id,
            "lines": [
                {
                    **{"id": line.id, "start": line.start, "end": line.end, "speaker": line.speaker, "source": line.source},
                    **{"translation": line.translation, "flags": list(line.flags), "voice": line.voice, "silent": line.silent},
                    "heard": line.heard,
                }
                for line in lines
            ],
            "given": given["edits"],
            "words": review_words(),
        }
        context = {
            **{"job": job, "data": data, "media": media, "voices": list(voices), "given_reason": given["reason"]},
            **{"count": len(lines), "flagged": sum(bool(line.flags) for line in lines), "shown": shown(job)},
        }
        return page(request, self.admin_site, "review.html", gettext("Review: %s") % job, **context)


class ReadOnly(admin.ModelAdmin):
    """To look at: what has happened isn't changed."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponse:
        raise Http404


@admin.register(Answer)
class AnswerAdmin(ReadOnly):
    """What reviewers said."""

    list_display = ("job", "decision", "reviewer", "at", "changed")
    list_filter = ("decision",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        mine = Job.objects.visible_to(request.user)
        return super().get_queryset(request).filter(job__in=mine).select_related("job__lesson", "reviewer")

    @admin.display(description=_("changed lines"))
    def changed(self, answer: Answer) -> int:
        return len(answer.edits)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly):
    """The webhooks that came, to see why a job stands as it does."""

    list_display = ("at", "event", "job", "id")
    list_filter = ("event",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        mine = Job.objects.visible_to(request.user)
        return super().get_queryset(request).filter(job__in=mine).select_related("job__lesson")


# --- How things are shown


def to_start(lessons: Iterable[Lesson]) -> HttpResponse:
    ids = "&".join(f"lesson={lesson.pk}" for lesson in lessons)
    return HttpResponseRedirect(f"{reverse('admin:coursedub_start')}?{ids}")


def page(request: HttpRequest, site: admin.AdminSite, template: str, title: str, **context: Any) -> TemplateResponse:
    whole = {**site.each_context(request), "title": title, "opts": Job._meta, **context}
    return TemplateResponse(request, f"coursedub_django/{template}", whole)


def badge(job: Job, text: str = "") -> SafeString:
    """The state in a word and a colour; in lists of jobs scripts keep it up to date."""
    shown_text = text or str(job.get_state_display())
    if job.publication == Job.Publication.PUBLISHED and not text:
        shown_text = str(job.get_publication_display())
    link = reverse("admin:coursedub_job_change", args=[job.pk])
    title = f"{job.get_state_display()} {job.get_publication_display() if job.publication else ''}".strip()
    return format_html(
        '<a class="cd-badge cd-{}" href="{}" title="{}" data-cd-job="{}" data-cd-state="{}"{}>{}</a>',
        kind_of(job),
        link,
        title,
        job.pk,
        news_of(job),
        SafeString("" if not text else " data-cd-keep"),
        shown_text,
    )


def news_of(job: Job) -> str:
    """What a page loads itself anew for when it changes. A webhook may say that a run is done before its result can be read."""
    return f"{job.state} {job.publication} {'with' if job.result else 'without'} result"


def kind_of(job: Job) -> str:
    if job.state == Job.State.COMPLETED:
        return {"published": "published", "failed": "failed"}.get(job.publication, "done")
    if job.has_failed:
        return "failed"
    return "review" if job.state == Job.State.REVIEW else "active"


def eta_of(job: Job) -> str:
    if job.state == Job.State.REVIEW and job.review_deadline:
        return gettext("until %s") % date_format(timezone.localtime(job.review_deadline), "j M H:i")
    if job.state != Job.State.RUNNING or job.eta is None:
        return ""
    minutes = max(0, round((job.eta - timezone.now()).total_seconds() / 60))
    return gettext("less than a minute") if not minutes else ngettext("about %d minute", "about %d minutes", minutes) % minutes


def cost_of(job: Job) -> str:
    return "" if job.cost is None else f"{number_format(job.cost, 2)} {settings().currency}"


def shown(job: Job) -> dict[str, Any]:
    """A job as pages and their scripts have it."""
    return {
        "id": str(job.pk),
        "state": news_of(job),
        "kind": kind_of(job),
        "label": str(job.get_publication_display() if job.publication == Job.Publication.PUBLISHED else job.get_state_display()),
        "active": job.is_active or job.publication == Job.Publication.PUBLISHING or (job.state == Job.State.COMPLETED and not job.result),
        "share": round(job.share, 3),
        "stage": str(STAGE_NAMES.get(job.stage, "")) if job.state == Job.State.RUNNING else "",
        "eta": eta_of(job),
        "cost": cost_of(job),
        "error": job.error,
        "into": language_name(job.target_language),
        "url": reverse("admin:coursedub_job_change", args=[job.pk]),
        "created": date_format(timezone.localtime(job.created_at), "j M H:i"),
        "stages": stages_of(job),
    }


def stages_of(job: Job) -> list[dict[str, Any]]:
    return [
        {"name": str(STAGE_NAMES.get(name, name)), "state": state, "label": str(STAGE_STATES.get(state, state)), "share": share}
        for name, state, share in job.stages
    ]


def files_of(job: Job) -> list[dict[str, str]]:
    order = list(FILE_NAMES)
    kinds = {what: what.partition("_")[0] for what in job.addresses}
    shown_first = sorted(kinds, key=lambda what: (order.index(kinds[what]) if kinds[what] in order else len(order), what))
    return [{"what": what, "name": file_name(what), "file": PurePosixPath(urlsplit(job.addresses[what]).path).name} for what in shown_first]


def file_name(what: str) -> str:
    """
    >>> file_name("vtt_en")
    'VTT en'
    """
    kind, _underscore, language = what.partition("_")
    return f"{kind.upper()} {language}" if language else str(FILE_NAMES.get(what, what))


def facts_of(job: Job) -> list[tuple[str, str]]:
    """What the run measured, in words."""
    values = job.result
    facts = []
    if isinstance(seconds := values.get("seconds"), int | float):
        facts.append((gettext("Time it took"), ngettext("%d minute", "%d minutes", round(seconds / 60)) % round(seconds / 60)))
    if isinstance(lines := values.get("lines"), int):
        facts.append((gettext("Lines"), str(lines)))
    if isinstance(flags := values.get("lines_flagged"), int):
        facts.append((gettext("Lines to look at"), str(flags)))
    if isinstance(rate := values.get("word_error_rate"), int | float):
        facts.append((gettext("Words heard wrongly when listened to again"), f"{number_format(100 * rate, 1)} %"))
    return facts


def advice(error: str) -> str:
    """What a person can do about an error, by what it says."""
    said = error.lower()
    if any(word in said for word in ("can't be reached", "time-out", "timed out", "try again", "answered 5", "connection")):
        return gettext("Something was out of reach for a while. Trying again usually helps; what is done already is not done twice.")
    if any(
        word in said
        for word in ("no speech", "nobody speaks", "silent", "not a media", "no sound", "larger than", "longer than", "more than")
    ):
        return gettext("It is the recording itself: the partner has to upload another one.")
    if any(word in said for word in ("limit", "cost", "forbid")):
        return gettext("The limits for the GPU server were reached. Try again later, or ask an administrator to raise them.")
    return ""


def review_words() -> dict[str, str]:
    """What the review page's script says."""
    return {
        "original": gettext("Play the original (o)"),
        "dubbed": gettext("Play the dubbing (d)"),
        "voice": gettext("Voice"),
        "silent": gettext("silent"),
        "undo": gettext("Undo the changes of this line"),
        "translation": gettext("Translation of the line at %s"),
        "approve": gettext("Approve"),
        "approve_changes": gettext("Approve with changes (%d)"),
        "none_changed": gettext("nothing changed"),
        "changed": gettext("changed lines: %d"),
        "unplayable": gettext("The sound can't be loaded. Load the page again."),
        "reason": gettext("Say why you reject it: somebody has to make it better."),
        "heard": gettext("heard: %s"),
        "lost": gettext("Your changes are not saved yet. Leave them?"),
    }
