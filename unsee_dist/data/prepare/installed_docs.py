"""The source `installed-docs`: English sentences from the docstrings of the Python packages installed here.

A real domain corpus on any machine, without a download. Modules are parsed (`ast`), never imported. Of a docstring
the prose is kept: paragraphs that are not indented, not a list, table, directive, doctest,
or part of a section such as Parameters; of a paragraph the sentences of 5 to 60 words that read as English.
"""

from __future__ import annotations

import ast
import gc
import re
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from string import ascii_letters

import xxhash

from unsee_dist.data.prepare.opening import InputDescription
from unsee_dist.data.processes import WorkerContext, end_with_parent

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
MODULE_BYTES = 1_000_000  # larger modules are generated tables
MIN_WORDS, MAX_WORDS = 5, 60
LETTERS = 0.8  # least share of ASCII letters among the characters that are not spaces
_NO_LETTERS = bytes(set(range(256)) - set(ascii_letters.encode()))
_SKIPPED = {
    "tests",
    "test",
    "_vendor",
    "_vendored",
    "vendored",
    "site-packages",
    "dist-packages",
    "idle_test",
}
_PROSE_SECTIONS = {"notes", "note", "description", "overview", "summary", "introduction", "usage"}
_NOT_PROSE = re.compile(r"\s|>>>|\.\. |\.\.\.|:\w|[-*+•|#@$%<{\[]|\d+[.)]\s|[\w.]+\s*[(:=]\s|\w+\(.*\)$")
_UNDERLINE = re.compile(r"([-=~^*#\"'`+])\1{2,}$")
# A sentence ends at . ! ? before a capital, unless the stop belongs to an abbreviation or an initial.
_ABBREVIATIONS = (
    "e.g",
    "i.e",
    "cf",
    "vs",
    "al",
    "etc",
    "Fig",
    "Eq",
    "Dr",
    "Mr",
    "No",
    "Ref",
    "Sec",
    "resp",
    "approx",
)
# What most places fail stands first: that takes a tenth of the time.
_END = re.compile(
    r"(?<=[.!?])(?=\s)"
    + "".join(rf"(?<!\b{re.escape(short)}\.)" for short in _ABBREVIATIONS)
    + r"(?<!\b[A-Z]\.)\s+(?=[A-Z\"'`])"
)
_MARKUP = [
    (
        re.compile(r":[\w:+-]+:`(?:~[\w.]*\.|[~!])?([^`<]+?)(?:\s*<[^`>]*>)?`"),
        r"\1",
    ),  # :class:`Name`, :ref:`text <label>`
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}"), r"\1"),  # `text <link>`_
    (re.compile(r"``?([^`]*)``?_{0,2}"), r"\1"),  # ``code``, `name`
    (re.compile(r"(?<!\w)\*{1,2}(\w[^*]*)\*{1,2}"), r"\1"),  # *emphasis*, **strong**
    (re.compile(r"\s*\[[\d, ]+\]_?"), ""),  # citations [1]_
]
_NOT_ENGLISH = re.compile(r"https?:|[{}=\\<>|@#^~`_]{2}|[{}\\<>|=]|\w\(\w*,")
_FUNCTION_WORDS = frozenset(
    {
        "the",
        "a",
        "an",
        "of",
        "to",
        "is",
        "are",
        "in",
        "for",
        "and",
        "or",
        "that",
        "this",
        "it",
        "be",
        "with",
        "as",
        "by",
        "on",
        "from",
        "not",
        "if",
        "when",
        "which",
        "can",
        "will",
    }
)


def objects(advance: Callable[[int], None] = lambda _: None) -> Iterator[tuple[str, list[str]]]:
    """(qualified name, sentences of its docstring) of every documented object, sorted by module, in source order.

    advance is called with the bytes read. A module that this Python cannot parse is skipped: every installation has
    some (templates, syntax of other versions).
    """
    # Parsing is the cost: 270 MB of source in a common environment, half a minute on one core. Without the
    # collector, which finds no cycles in a syntax tree, it takes two thirds of the time.
    pool = ProcessPoolExecutor(mp_context=WorkerContext(), initializer=_start_worker)
    try:
        modules = [(name, path) for name, path, _ in _modules()]
        per_module = pool.map(_documents_of_module, modules, chunksize=32)
        for (*_, size), documents in zip(_modules(), per_module, strict=True):
            yield from documents
            advance(size)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    gc.disable()
    end_with_parent()


def describe() -> InputDescription:
    """The installed modules as an input: bytes of source, and a digest over their names and sizes."""
    digest = xxhash.xxh3_128(f"{sys.version_info[:3]}".encode())
    for name, _, size in _modules():
        digest.update(f"{name}\t{size}\n".encode())
    return InputDescription("installed-docs", sum(size for *_, size in _modules()), digest.hexdigest())


@cache
def _modules() -> list[tuple[str, Path, int]]:
    """(dotted name, file, bytes), sorted: the standard library first, then the installed packages."""
    paths = sysconfig.get_paths()
    modules = []
    for root in dict.fromkeys(Path(paths[kind]) for kind in ("stdlib", "purelib", "platlib")):
        files = []
        for file in root.rglob("*.py"):
            parts = file.relative_to(root).with_suffix("").parts
            size = file.stat().st_size
            if size and size <= MODULE_BYTES and not _SKIPPED.intersection(parts):
                files.append((".".join(part for part in parts if part != "__init__"), file, size))
        modules += sorted(files)
    return modules


def _documents_of_module(module: tuple[str, Path]) -> list[tuple[str, list[str]]]:
    """Documented objects of a module (dotted name, file)."""
    name, path = module
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's modules
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    documents = ((qualified, prose(doc)) for qualified, doc in _docstrings(tree, name))
    return [(qualified, sentences) for qualified, sentences in documents if sentences]


def _docstrings(node: Documented, name: str) -> Iterator[tuple[str, str]]:
    doc = ast.get_docstring(node)
    if doc:
        yield name, doc
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}")


def prose(docstring: str) -> list[str]:
    """The English sentences of a docstring, in order, each once."""
    sentences = (
        sentence for paragraph in _paragraphs(docstring) for sentence in _END.split(_plain(paragraph))
    )
    return list(dict.fromkeys(sentence for sentence in sentences if _reads_as_english(sentence)))


def _paragraphs(docstring: str) -> Iterator[str]:
    """Paragraphs of prose, each on one line."""
    in_prose = True
    for paragraph in re.split(r"\n\s*\n", docstring):
        lines = paragraph.splitlines()
        if len(lines) > 1 and _UNDERLINE.match(lines[1].strip()):  # a section's title
            in_prose = lines[0].strip().lower() in _PROSE_SECTIONS
            lines = lines[2:]
        if lines and in_prose and not any(_NOT_PROSE.match(line) for line in lines):
            yield " ".join(lines)


def _plain(text: str) -> str:
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def _reads_as_english(sentence: str) -> bool:
    words = sentence.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or sentence[-1] not in ".!?" or not sentence[0].isupper():
        return False
    letters = len(sentence.encode("ascii", "ignore").translate(None, _NO_LETTERS))
    return (
        letters >= LETTERS * sum(map(len, words))
        and not _NOT_ENGLISH.search(sentence)
        and not _FUNCTION_WORDS.isdisjoint(word.lower() for word in words)
    )
