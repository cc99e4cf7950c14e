"""A map of an index: its chunks as points in two dimensions, the question among them, and what it found.

The plane is that of the two principal components of the vectors (PCA); UMAP, from the extra `umap`, keeps neighbours
together that PCA lays over one another. Distances on the map are not those of the search, which compares all
dimensions.
"""

from __future__ import annotations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.report import charts
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

    Empty for an index of fewer than three chunks, where there is no plane.
    """
    import numpy as np

    rows, names = drawn(kept.files, hits)
    if len(rows) < 3:
        return []
    places, here, share = plane(np.asarray(kept.files.matrix()[rows]), question, how)
    at = {int(row): i for i, row in enumerate(rows)}
    found = [places[at[hit.row]] for hit in hits if hit.row in at]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    most = sorted(counts, key=lambda name: (-counts[name], name))[: len(charts.COLOURS)]
    span = float(np.ptp(places, axis=0).max()) or 1.0
    gap = min((float(np.hypot(*(here - place))) for place in found), default=0.0) / span
    words = (
        f"map ({how.upper()}): {len(rows):,} chunks of {len(counts):,} documents; the question is {gap:.0%} of "
        f"the map's width from the nearest of its {len(found)} hits"
    )
    words += f"; the plane shows {share:.0%} of the variance" if share is not None else ""
    return [Chart(lambda: picture(places, names, most, here, found), words), Paragraph(words, "quiet")]


def picture(places, names, most, here, found):
    """Points by document, hits as numbered rings, the question as a star."""
    import numpy as np

    figure, (axes,) = charts.figure(7.2, 4.6)
    names, size = np.array(names), max(3.0, min(28.0, 9000 / len(names)))
    other = ~np.isin(names, most)
    if other.any():
        axes.scatter(*places[other].T, s=size, color=charts.GREY, alpha=0.35, linewidths=0, label="others")
    for colour, name in zip(charts.COLOURS, most, strict=False):
        axes.scatter(*places[names == name].T, s=size, color=colour, alpha=0.55, linewidths=0, label=short(name))
    for n, place in enumerate(found, start=1):
        axes.scatter(*place, s=90, facecolors="none", edgecolors=charts.RED, linewidths=1.4)
        axes.annotate(f"[{n}]", place, (6, 5), textcoords="offset points", color=charts.RED, fontsize=8)
    axes.scatter(*here, s=170, marker="*", color=charts.RED, edgecolors="white", linewidths=0.6, label="question")
    axes.set_xticks([])
    axes.set_yticks([])
    charts.legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    for handle in axes.get_legend().legend_handles:
        handle.set_sizes([36])
    return figure


def short(name: str) -> str:
    """A document's name in the legend, which leaves out what begins with _."""
    return charts.label("…" + name[-27:] if len(name) > 28 else name).lstrip("_")
