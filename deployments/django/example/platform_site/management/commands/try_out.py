"""`manage.py try_out`: the site to click through, with its tables made, one person of each group, and jobs kept up to date."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

PEOPLE = {"anna": "administrator", "rita": "reviewer", "paula": "partner", "petra": "partner"}
PASSWORD = "dubbing"


class Command(BaseCommand):
    help = "Make the database and people to log in as, and serve."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("everybody knows the password of these people: only with DJANGO_DEBUG=1")
        settings.DATA.mkdir(parents=True, exist_ok=True)
        call_command("migrate", verbosity=0)
        for name, group in PEOPLE.items():
            person, is_new = User.objects.get_or_create(username=name, defaults={"is_staff": True})
            if is_new:
                person.set_password(PASSWORD)
                person.save()
            person.groups.add(Group.objects.get(name=f"coursedub {group}"))
        people = ", ".join(f"{name} ({group})" for name, group in PEOPLE.items())
        self.stdout.write(f"http://{options['address']}/ as {people}; password: {PASSWORD}")
        manage = Path(__file__).resolve().parents[3] / "manage.py"
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the other process ends too
        syncing = subprocess.Popen([sys.executable, str(manage), "sync_jobs", "--every", "10"])
        try:
            call_command("runserver", options["address"], use_reloader=False)
        finally:
            syncing.terminate()
