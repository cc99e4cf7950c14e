"""For every test: one thread, so that small models are quick on a busy machine and the same in a subprocess."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
