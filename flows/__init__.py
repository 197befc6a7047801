"""Prefect flows around ``dvc repro``: runs, schedules, notices. They import no stage; DVC alone decides what runs."""
