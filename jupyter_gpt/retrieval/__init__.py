"""Retrieval: documents, chunks, embeddings, an index on disk, search, and answers that say where they are from."""
