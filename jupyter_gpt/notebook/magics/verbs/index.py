"""`%gpt index`, `indexes`, `search`: documents made ready to be found, and found."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import number, whole
from jupyter_gpt.notebook.magics.notebook import show
from jupyter_gpt.notebook.magics.options import OUT, Command, Option
from jupyter_gpt.retrieval.chunk import OVERLAP, TOKENS
from jupyter_gpt.retrieval.document_sources import SUPPORTED, files


def weight(text: str) -> float | bool:
    """The value of --hybrid: a weight, or True where none is given."""
    return number(text) if text else True


RETRIEVAL = (
    Option("--k", "chunks to find", "K", whole, default=4),
    Option("--keyword", "look for the words alone (BM25), not for the meaning", kind=None),
    Option(
        "--hybrid",
        "look for both, and fuse the two lists by rank; WEIGHT, from 0 to 1, is that of meaning against words "
        "(default: 0.5; %gpt evaluate --index says what suits an index)",
        "WEIGHT",
        weight,
        optional=True,
    ),
    Option("--rerank", "a cross-encoder that reads question and chunk together and orders what was found", "MODEL"),
    Option("--mmr", "of what was found, prefer chunks that are unlike those already taken", kind=None),
    Option(
        "--filter",
        "only chunks for which this holds, of source, page, heading, text and chunk: "
        "\"page > 3 and 'leave' in heading\"",
        "CONDITION",
    ),
)

INDEX = Command(
    name="%gpt index",
    summary="make documents ready to be searched, or bring an index up to date",
    about=(
        "Cuts documents into chunks, embeds them, and keeps both under .jupyter_gpt/indexes/NAME, a folder that may be "
        "moved. Run again, only what is new or changed is embedded, and what is gone from its sources leaves the "
        "index; "
        "without sources it looks at those it has. What cannot be read is passed over and named. ■ stops it and keeps "
        "what was done; the next run goes on there."
    ),
    groups=(
        (
            "Index",
            (
                Option("NAME", "what to call it", needed=True, complete="indexes"),
                Option(
                    "SOURCES",
                    f"files, globs, folders ({SUPPORTED}), addresses, and $variables that hold texts",
                    many=True,
                    literal=True,
                    complete="files",
                ),
            ),
        ),
        (
            "Options",
            (
                Option(
                    "--embedder",
                    "minilm, a model of this notebook (its last hidden states, averaged), an endpoint, a "
                    "folder or owner/name of the hub",
                    "MODEL",
                    default="minilm",
                    complete="models",
                    hints=("minilm",),
                ),
                Option(
                    "--chunk-tokens", "tokens of a chunk at most, counted by the embedder", "N", whole, default=TOKENS
                ),
                Option(
                    "--overlap",
                    "share of a chunk that the next repeats, or how many tokens",
                    "SHARE",
                    number,
                    default=OVERLAP,
                ),
                Option("--add", "keep what the index holds besides these sources", kind=None),
                Option(
                    "--overwrite",
                    "let go of sources not named here; make the index anew where settings differ",
                    kind=None,
                ),
                OUT,
            ),
        ),
    ),
    examples=(
        "%gpt index docs ./handbook/*.pdf ./notes --embedder minilm",
        "%gpt index docs",
        "%gpt index mine $texts --embedder storyteller",
    ),
)

INDEXES = Command(
    name="%gpt indexes",
    summary="the indexes of this folder: size, age, embedder",
    about="Lists every index under .jupyter_gpt/indexes.",
    groups=(("Options", (OUT,)),),
)

SEARCH = Command(
    name="%gpt search",
    summary="look something up in an index",
    about=(
        "Shows the chunks nearest to a question, with their scores, sources and pages, the question's words "
        "marked, and a "
        "map of the index with the question and its hits."
    ),
    groups=(
        (
            "Options",
            (
                Option("INDEX", "the index", needed=True, complete="indexes"),
                Option("QUESTION", "what to look for, in quotes", needed=True),
                *RETRIEVAL,
                Option(
                    "--map",
                    "how the map is drawn: the principal components, or UMAP (an extra)",
                    choices=("pca", "umap", "none"),
                    default="pca",
                ),
                OUT,
            ),
        ),
    ),
    examples=(
        '%gpt search docs "How many days of leave do I have?"',
        "%gpt search docs 'parental leave' --hybrid --filter \"page > 3\"",
    ),
)


def index(gpt, given: dict, ip) -> object:
    """Makes it with a line of progress where a person looks; leaves what was done. The result is the index."""
    from jupyter_gpt.notebook.views.follow import is_live
    from jupyter_gpt.notebook.views.indexes import index_bundle
    from jupyter_gpt.notebook.views.progress import Progress, megabytes, percent

    options = {key: value for key, value in given.items() if key not in ("name", "sources", "out")}
    options["variables"] = ip.user_ns
    sources = given.get("sources")
    for source in sources or []:
        if not source.startswith(("$", "http://", "https://")):
            files(source)  # in a line every word is meant as a path, and none as a text
    if not is_live():
        kept = gpt.index(given["name"], sources, **options)
        show(index_bundle(kept))
        return kept
    bar, left = Progress(), None

    def drawn(amount):
        def progress(what, done, total):
            bar.amount = amount
            bar(what, done, total)

        return progress

    try:
        kept = gpt.index(given["name"], sources, progress=drawn(percent), fetching=drawn(megabytes), **options)
        left = index_bundle(kept)
    finally:
        bar.close(left)
    return kept


def indexes(gpt, given: dict, ip) -> object:
    """Shows the table; the result is `gpt.indexes`."""
    from jupyter_gpt.notebook.views.indexes import indexes_bundle

    show(indexes_bundle(gpt.indexes))
    return gpt.indexes


def search(gpt, given: dict, ip) -> object:
    """Shows the hits; the result is the list of them."""
    from jupyter_gpt.notebook.views.index_map import index_map
    from jupyter_gpt.notebook.views.sources import hits_bundle

    kept = gpt.indexes[given["index"]]
    options = {key: given[key] for key in ("k", "keyword", "hybrid", "rerank", "mmr", "filter") if key in given}
    hits = kept.search(given["question"], **options)
    how = given.get("map", "pca")
    drawn = [] if how == "none" else index_map(kept, kept.vectors([given["question"]])[0], hits, how)
    show(hits_bundle(kept.name, given["question"], hits, ranked(options, kept.about["embedder"]), drawn))
    return hits


def ranked(options: dict, embedder: str) -> str:
    """How the hits were ranked, in words."""
    how = f"ranked by {embedder}'s cosine"
    if options.get("keyword"):
        how = "ranked by BM25"
    if "hybrid" in options:
        share = "" if options["hybrid"] is True else f" ({options['hybrid']:g} to {1 - options['hybrid']:g})"
        how = f"ranked by {embedder}'s cosine and BM25, fused by reciprocal rank{share}"
    if options.get("rerank"):
        how += f", then by {options['rerank']}"
    if options.get("mmr"):
        how += ", spread out (maximal marginal relevance)"
    return how + (f"; only where {options['filter']}" if options.get("filter") else "")
