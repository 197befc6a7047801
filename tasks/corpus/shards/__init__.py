"""Token shards: their format on disk, and the step from documents to tokens. They know nothing of batches."""
