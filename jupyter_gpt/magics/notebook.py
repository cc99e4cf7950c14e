"""What a magic asks of the notebook it runs in: which cell it is, a place to show, a variable to bind."""

from __future__ import annotations


def cell_id(ip) -> str | None:
    """Which cell is running, as the front end names it; None where it does not say (nbclient, a terminal)."""
    parent = ip.get_parent() if hasattr(ip, "get_parent") else None
    return ((parent or {}).get("metadata") or {}).get("cellId")


def bind(ip, name: str | None, value: object) -> None:
    """`--out VAR`: the value under that name in the notebook; nothing without a name."""
    if name:
        ip.push({name: value})


def show(bundle: object) -> None:
    """Displays a static bundle, once."""
    from IPython.display import display

    display(bundle)
