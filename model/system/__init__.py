"""What the operating system says: who may have written a file, how many cores this process may use. It knows no torch."""
