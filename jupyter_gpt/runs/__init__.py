"""Runs: a training job is a folder; the process that trains writes events there, and any process can read them."""
