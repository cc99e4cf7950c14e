"""The models of this kernel as an OpenAI-compatible service."""
