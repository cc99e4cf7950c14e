"""Runs: a training job is a folder; whoever runs it writes events there, whoever looks reads them."""
