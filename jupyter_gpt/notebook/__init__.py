"""The notebook: magics, and what a person sees."""
