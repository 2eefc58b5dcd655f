"""What the host project includes: where runs send webhooks and fetch uploaded lessons. People's pages are in the admin.

path("dubbing/", include("coursedub_django.urls")),
"""

from django.urls import path, re_path

from coursedub_django.views import upload
from coursedub_django.webhooks import webhook

app_name = "coursedub"

urlpatterns = [
    re_path("^webhook/?$", webhook, name="webhook"),  # a redirect to the one with the slash would be followed by nobody
    path("upload/<str:token>/<str:name>", upload, name="upload"),
]
