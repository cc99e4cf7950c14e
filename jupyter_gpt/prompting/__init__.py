"""Techniques of prompting: each a function from a question to a trace, its prompts at the top of its one file."""
