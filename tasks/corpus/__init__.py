"""Records, from raw files to documents and token shards. It knows nothing of training."""
