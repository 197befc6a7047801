"""The HTTP server and its page. Of the pipeline it knows the registry alone."""
