"""Plumbing: files, digests, settings, processes, records of runs. It knows nothing of records, models or trackers."""
