"""The numerics: the training forward, optimizers, losses, schedules and devices."""
