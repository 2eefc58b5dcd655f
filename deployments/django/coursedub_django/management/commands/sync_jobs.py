"""`manage.py sync_jobs`: bring all jobs up to date by what Prefect says. From cron each minute it repairs whatever webhooks were missed."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from coursedub_django.jobs import sync, to_sync
from coursedub_django.models import Delivery
from coursedub_django.prefect_api import PrefectApi, PrefectError

WEBHOOKS_KEPT = timedelta(days=90)  # to look at; what is older than the window for replays is refused by its time alone


class Command(BaseCommand):
    help = "Ask Prefect about all jobs that are in work, and start those that couldn't be started."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--every", type=float, metavar="SECONDS", help="go on doing so, for a service rather than cron")

    def handle(self, *args: Any, **options: Any) -> None:
        every = options["every"]
        Delivery.objects.filter(at__lt=timezone.now() - WEBHOOKS_KEPT).delete()
        while True:
            try:
                with PrefectApi.from_settings() as api:
                    looked_at = sync(to_sync(), api)
            except PrefectError as error:
                if not every:
                    raise CommandError(str(error)) from error
                self.stderr.write(str(error))
            else:
                if options["verbosity"] > 1 or not every:
                    self.stdout.write(f"{looked_at} jobs looked at")
            if not every:
                return
            time.sleep(every)
