"""Data: sources, mixtures, tokenizers, tokens on disk, and rows packed from them."""
