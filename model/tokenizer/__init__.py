"""A checkpoint's tokenizer and chat template: text to ids and back. It knows nothing of weights."""
