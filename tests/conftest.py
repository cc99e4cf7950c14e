"""For every test: nothing asks a hub for anything."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
