"""Metrics of models, techniques, retrieval and annotators, with intervals."""
