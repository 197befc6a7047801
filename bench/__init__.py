"""Measurements: speed beside peers, scale, ablations, memorization. Nothing imports it."""
