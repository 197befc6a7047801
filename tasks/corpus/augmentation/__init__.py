"""Variants of train documents, one method per file. They know nothing of each other's order."""
