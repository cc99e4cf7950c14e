"""Training a GPT: the loops, their optimisers, losses, schedules and checkpoints."""
