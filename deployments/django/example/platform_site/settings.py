"""Settings of the example project: all of this installation comes from the environment (README.md beside has the table).

Made for trying out: DEBUG is on unless DJANGO_DEBUG=0, and then DJANGO_SECRET_KEY and DJANGO_HOSTS have to be set.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

DATA = Path(os.environ.get("DJANGO_DATA", Path(__file__).resolve().parents[1] / "data"))
DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"


def _secret_key() -> str:
    """While trying out, one that all processes here share, and that outlives them."""
    if key := os.environ.get("DJANGO_SECRET_KEY"):
        return key
    if not DEBUG:
        raise ImproperlyConfigured("DJANGO_SECRET_KEY: needed unless DJANGO_DEBUG=1")
    DATA.mkdir(parents=True, exist_ok=True)
    file = DATA / "secret-key"
    if not file.exists():
        file.touch(0o600)
        file.write_text(secrets.token_hex(32))
    return file.read_text()


SECRET_KEY = _secret_key()
ALLOWED_HOSTS = os.environ.get("DJANGO_HOSTS", "localhost,127.0.0.1").split(",")
PUBLIC_URL = os.environ.get("DJANGO_URL", "http://127.0.0.1:8000")

INSTALLED_APPS = [
    "platform_site",
    "coursedub_django",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "platform_site.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
            ]
        },
    }
]


def _database(address: str) -> dict[str, object]:
    """postgresql://user:password@host:port/name?host=/socket/folder, or the path of an SQLite file."""
    if not address.startswith("postgresql://"):
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": address, "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20}}
    parts = urlsplit(address)
    more = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": more.pop("host", parts.hostname or ""),
        "PORT": more.pop("port", str(parts.port or "")),
        "OPTIONS": more,
    }


DATABASES = {"default": _database(os.environ.get("DJANGO_DATABASE", str(DATA / "platform.sqlite3")))}
AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"}]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("ru", _("Russian"))]
TIME_ZONE = os.environ.get("DJANGO_TIME_ZONE", "UTC")
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = DATA / "static"
MEDIA_ROOT = DATA / "uploads"  # has no address: lessons are given to those alone who may have them
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 2**20
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https:")

COURSEDUB = {
    "API_URL": os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api"),
    "API_AUTH": os.environ.get("PREFECT_API_AUTH_STRING", ""),
    "API_CA": os.environ.get("PREFECT_API_SSL_CERT_FILE", ""),
    "PUBLISH_TO": os.environ.get("COURSEDUB_PUBLISH_TO", ""),
    "FILES_ROOT": os.environ.get("COURSEDUB_FILES_ROOT", ""),
    "KINESCOPE": os.environ.get("COURSEDUB_KINESCOPE", ""),
    "WEBHOOK": os.environ.get("COURSEDUB_WEBHOOK", ""),
    "WEBHOOK_SECRETS": [secret for secret in os.environ.get("COURSEDUB_WEBHOOK_SECRETS", "").split(",") if secret],
    "PUBLIC_URL": PUBLIC_URL,
}
