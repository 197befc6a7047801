"""Rules that clean one record, and decisions over the whole corpus. They know nothing of formats."""
