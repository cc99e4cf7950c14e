"""What lives in the kernel: models, runs, corpora, the worker that runs jobs, and the store on disk."""
