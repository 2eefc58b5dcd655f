"""The app, and what `manage.py check` says about its settings."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _


class CoursedubConfig(AppConfig):
    name = "coursedub_django"
    label = "coursedub"
    verbose_name = _("Dubbing")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        checks.register(check_settings)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    from coursedub_django.conf import settings

    try:
        found = settings()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="coursedub.E001")]
    if not found.webhook_secrets:
        hint = "Jobs are then kept up to date by `manage.py sync_jobs` and by open pages alone."
        return [checks.Warning("COURSEDUB: no WEBHOOK_SECRETS, so every webhook is refused", hint=hint, id="coursedub.W001")]
    return []
