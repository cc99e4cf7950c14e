"""Stages: what a cell does, one after the other as an assistant is made; no IPython, no widgets."""
