"""coursedub in Django: courses and lessons, dubbing jobs, review and publishing, through Prefect's API."""
