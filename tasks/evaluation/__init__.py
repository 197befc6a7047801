"""Scoring base and tuned model on held-out text, with intervals. It knows nothing of training or the registry."""
