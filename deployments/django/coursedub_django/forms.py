"""Forms of the admin's own pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.translation import get_language_info
from django.utils.translation import gettext_lazy as _

from coursedub_django.conf import settings
from coursedub_django.models import Job, Lesson


def language_name(tag: str) -> str:
    """In the reader's language, where Django knows it; a region stays a tag."""
    base = tag.partition("-")[0].lower()
    try:
        name = str(get_language_info({"zh": "zh-hans", "no": "nb"}.get(base, base))["name_translated"])
    except KeyError:
        return tag
    return f"{name} ({tag})"


class LessonForm(forms.ModelForm):
    """A lesson as whoever `request` comes from may write it."""

    request: HttpRequest | None = None

    def clean_source(self) -> str:
        source = str(self.cleaned_data["source"])
        user = self.request.user if self.request else None
        if source and source != self.instance.source and user and not user.has_perm("coursedub.see_every_course"):
            allowed = settings().partner_sources
            if not source.startswith(allowed):
                raise forms.ValidationError(_("The address must begin with %(allowed)s.") % {"allowed": ", ".join(allowed)})
        return source


class StartForm(forms.Form):
    """Which languages lessons are dubbed into, and what is reviewed."""

    languages = forms.MultipleChoiceField(label=_("Dub into"), widget=forms.CheckboxSelectMultiple)
    review = forms.ChoiceField(label=_("Review"), choices=Job.Review.choices, widget=forms.RadioSelect)

    def __init__(self, lessons: Iterable[Lesson], *args: Any, **options: Any) -> None:
        wanted = list(dict.fromkeys(tag for lesson in lessons for tag in lesson.course.targets))
        initial = {"languages": wanted, "review": settings().review}
        super().__init__(*args, initial=initial, **options)
        offered = dict.fromkeys([*wanted, *settings().languages])
        self.fields["languages"].choices = [(tag, language_name(tag)) for tag in offered]  # type: ignore[attr-defined]
