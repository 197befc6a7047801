"""Generation on a loaded model: sampling, the key/value cache, the decoding steps of CPU and GPU. It knows nothing of HTTP."""
