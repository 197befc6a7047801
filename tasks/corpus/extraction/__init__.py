"""Extraction tasks: questions about a note whose answers stand in the structured record of the same stay."""
