"""Readers of raw files, one per format: bytes in, documents or rejections out. They know nothing of cleaning."""
