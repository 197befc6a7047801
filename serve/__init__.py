"""The HTTP server and its page. Of the pipeline it imports the registry only."""
