"""The environment: which Python, what is checked before the first download, what is installed. Only the standard library."""
