"""Fine-tuning: packing, the loop, its checkpoints, memory and cost. It knows nothing of evaluation or the registry."""
