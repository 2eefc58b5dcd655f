"""Three groups that an installation starts with: partner, reviewer, administrator. What they may do can be changed in the admin."""

from django.db import migrations

PARTNER, REVIEWER, ADMINISTRATOR = "coursedub partner", "coursedub reviewer", "coursedub administrator"

GROUPS = {
    PARTNER: {
        "course": ("add", "change", "view"),
        "lesson": ("add", "change", "delete", "view"),
        "job": ("view",),
    },
    REVIEWER: {
        "course": ("view", "see_every_course"),
        "lesson": ("view",),
        "job": ("view", "review_job"),
        "answer": ("view",),
    },
    ADMINISTRATOR: {
        "course": ("add", "change", "delete", "view", "see_every_course"),
        "lesson": ("add", "change", "delete", "view"),
        "job": ("view", "delete", "start_job", "cancel_job", "review_job", "publish_job"),
        "answer": ("view",),
        "delivery": ("view",),
    },
}
NAMES = {
    "see_every_course": "Can see the courses of every partner",
    "start_job": "Can start dubbing",
    "cancel_job": "Can cancel dubbing",
    "review_job": "Can review and approve",
    "publish_job": "Can publish",
}


def make_groups(apps, schema_editor):
    # Django itself makes permissions after all migrations: too late for the groups.
    database = schema_editor.connection.alias
    content_types = apps.get_model("contenttypes", "ContentType").objects.using(database)
    permissions = apps.get_model("auth", "Permission").objects.using(database)
    groups = apps.get_model("auth", "Group").objects.using(database)
    for name, rights in GROUPS.items():
        group, _ = groups.get_or_create(name=name)
        for model, verbs in rights.items():
            kind, _ = content_types.get_or_create(app_label="coursedub", model=model)
            verbose = apps.get_model("coursedub", model)._meta.verbose_name_raw
            for verb in verbs:
                codename = verb if verb in NAMES else f"{verb}_{model}"
                label = NAMES.get(verb, f"Can {verb} {verbose}")
                permission, _ = permissions.get_or_create(content_type=kind, codename=codename, defaults={"name": label})
                group.permissions.add(permission)


def remove_groups(apps, schema_editor):
    apps.get_model("auth", "Group").objects.using(schema_editor.connection.alias).filter(name__in=GROUPS).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("coursedub", "0001_initial"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]
    operations = [migrations.RunPython(make_groups, remove_groups)]
