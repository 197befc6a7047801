"""What stands behind a version: its passport, signature, verification and pages. It decides nothing."""
