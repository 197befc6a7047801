"""Finding and replacing what identifies people, and measuring how much of it is found. It knows nothing of files."""
