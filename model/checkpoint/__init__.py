"""Checkpoints in Hugging Face's, Meta's and GGUF's layout: reading, writing, converting. It knows nothing of generation."""
