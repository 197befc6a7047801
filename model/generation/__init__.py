"""Generation on a loaded model: sampling, the key/value cache, the CPU's decoding step. It knows nothing of HTTP."""
