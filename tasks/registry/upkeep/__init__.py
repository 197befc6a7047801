"""Work on what is registered: rebuild, free disk space, forget records, watch for drift. It promotes nothing."""
