"""What several tests share. `pyproject.toml` puts `tests/` on the path, so that it is imported as `helpers`."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
