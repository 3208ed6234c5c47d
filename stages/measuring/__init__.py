"""The parts of the fidelity stage: files of logits read and compared."""
