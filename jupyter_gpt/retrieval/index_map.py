"""A map of an index: its chunks as points in two dimensions, the question among them, and what it found.

The plane is that of the two principal components of the vectors (PCA); UMAP, from the extra `umap`, keeps neighbours
together that PCA lays over one another. Distances on the map are not those of the search, which compares all
dimensions.
"""

from __future__ import annotations

from collections import Counter

from jupyter_gpt.errors import GPTError
from jupyter_gpt.report import charts
from jupyter_gpt.report.charts import Group, Scatter
from jupyter_gpt.report.parts import Chart, Paragraph, Part

POINTS = 5000  # chunks drawn at most, drawn by lot


def plane(vectors, question, how: str = "pca"):
    """Places `(n, 2)` of the vectors `(n, D)` and of the question `(D,)`; and what share of the variance they show, or
    None.

    Raises GPTError when UMAP is asked for and not installed.
    """
    import numpy as np

    if how == "umap":
        try:
            import umap  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise GPTError("--map umap needs an extra: pip install 'jupyter_gpt[umap]'") from error
        fitted = umap.UMAP(n_components=2, metric="cosine", random_state=0, n_neighbors=min(15, len(vectors) - 1)).fit(
            vectors
        )
        return fitted.embedding_, fitted.transform(question[None])[0], None
    middle = vectors.mean(0)
    centred = vectors - middle
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), range(axes.shape[1])] < 0, -1, 1)  # one sign on every machine
    total = float(values.sum())
    share = float(values[-2:].sum()) / total if total > 0 else None
    return centred @ axes, (question - middle) @ axes, share


def drawn(index, hits):
    """Which rows are drawn `(n,)`, the hits among them, and the document of each."""
    import numpy as np

    alive = np.flatnonzero(index.alive())
    found = [hit.row for hit in hits]
    if len(alive) > POINTS:
        alive = np.random.default_rng(0).choice(alive, POINTS, replace=False)
    rows = np.array(sorted({*alive.tolist(), *found}))
    with index.open() as db:
        of = dict(
            db.execute(
                "SELECT v.row, min(d.source) FROM vectors v JOIN chunks c ON c.hash = v.hash"
                " JOIN documents d ON d.content = c.content GROUP BY v.row"
            )
        )
    return rows, [of.get(int(row), "") for row in rows]


def index_map(kept, question, hits, how: str = "pca") -> list[Part]:
    """The map, and in words what it shows. `kept` is a `KeptIndex`, `question` its vector `(D,)`, `hits` what it found.

    Empty for an index of fewer than three chunks, which cannot be projected to two dimensions.
    """
    import numpy as np

    rows, names = drawn(kept.files, hits)
    if len(rows) < 3:
        return []
    places, here, share = plane(np.asarray(kept.files.matrix()[rows]), question, how)
    at = {int(row): i for i, row in enumerate(rows)}
    found = [hit for hit in hits if hit.row in at]
    span = float(np.ptp(places, axis=0).max()) or 1.0
    gap = min((float(np.hypot(*(here - places[at[hit.row]]))) for hit in found), default=0.0) / span
    words = (
        f"map ({how.upper()}): {len(rows):,} chunks of {len(set(names)):,} documents; the question is {gap:.0%} of "
        f"the map's width from the nearest of its {len(found)} hits"
    )
    words += f"; the plane shows {share:.0%} of the variance" if share is not None else ""
    hit_points = [places[at[hit.row]].tolist() for hit in found]
    groups = [
        *by_document(places.tolist(), names),
        Group("hits", hit_points, charts.RED, [f"[{n}]" for n in range(1, len(found) + 1)], shape="ring", written=True),
        Group("question", [here.tolist()], charts.RED, shape="star"),
    ]
    return [Chart(Scatter(groups, size=(7.2, 4.6)), words), Paragraph(words, "quiet")]


def by_document(places: list, names: list[str]) -> list[Group]:
    """The chunks of each document, the largest documents first; those beyond the colours are one group."""
    counts = Counter(names)
    most = sorted(counts, key=lambda name: (-counts[name], name))[: len(charts.COLOURS)]
    of = {name: [place for place, own in zip(places, names, strict=True) if own == name] for name in most}
    groups = [Group(name, of[name], colour) for colour, name in zip(charts.COLOURS, most, strict=False)]
    others = [(place, name) for place, name in zip(places, names, strict=True) if name not in of]
    if not others:
        return groups
    return [Group("others", [place for place, _ in others], charts.GREY, [name for _, name in others]), *groups]
