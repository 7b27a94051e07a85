"""Of a docstring the prose stays, and modules are read, not run."""

import pytest

from unsee_dist.data.prepare import installed_docs
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare

MODULE = '''
"""Ropes hold the boat to the quay.

They are checked every day, e.g. Mondays too. A worn rope is a danger to the crew!

    Indented text is code and it is not for the reader.

>>> this is the doctest that it must not show.
1

Parameters
----------
length : int
    The length of the rope is given in metres here.

The words of a section such as this are not prose.

Notes
-----
The rope was ``measured`` by the :class:`~quay.Master` of the harbour [1]_.
"""
raise SystemExit("modules must not be run")

class Rope:
    """Too short a line."""

    def cut(self):
        """Cut the rope into the pieces of a net.

        Args:
            pieces: The number of pieces is given as an integer.

        - The first item of a list is not prose.
        See https://example.org/ropes for the rest of it.
        """

    async def tie(self):
        """Tie the rope to the ring on the wall."""
'''


@pytest.fixture
def modules(tmp_path, monkeypatch):
    def install(files):
        found = []
        for name, source in sorted(files.items()):
            (tmp_path / f"{name}.py").write_text(source)
            found.append((name, tmp_path / f"{name}.py", len(source)))
        monkeypatch.setattr(installed_docs, "_modules", lambda: found)

    return install


def test_objects_and_their_sentences(modules):
    modules(
        {"quay": MODULE, "broken": 'def f(:\n    """The module is of another language."""', "none": "x = 1"}
    )
    read = []
    assert list(installed_docs.objects(read.append)) == [
        (
            "quay",
            [
                "Ropes hold the boat to the quay.",
                "They are checked every day, e.g. Mondays too.",
                "A worn rope is a danger to the crew!",
                "The rope was measured by the Master of the harbour.",
            ],
        ),
        ("quay.Rope.cut", ["Cut the rope into the pieces of a net."]),
        ("quay.Rope.tie", ["Tie the rope to the ring on the wall."]),
    ]
    assert len(read) == 3


@pytest.mark.parametrize(
    "sentence",
    [
        "Four words are few.",
        "This one does not end",
        "the first letter of this is small.",
        "Call f(a, b) = {x} to see the result of it.",
        "Zahlen 1 2 3 4 5 6 7 8 9 10 11 12 13 of it.",
        "Веревка держит лодку the у причала на реке в любую погоду.",
        "Lorem ipsum dolor amet consectetur adipiscing elit.",
        "A " + "very " * 60 + "long sentence of the book.",
    ],
)
def test_what_does_not_read_as_an_english_sentence(sentence):
    assert installed_docs.prose(sentence) == []
    assert installed_docs.prose(sentence + "\n\nThe next paragraph is kept as it is.") != []


def test_abbreviations_end_no_sentence_and_half_a_character_is_no_error():
    one, another = (
        "The sum of Fig. A is a part of it \ud800.",
        "It is of J. B. Smith et al. The next one is short.",
    )
    assert installed_docs.prose(f"{one} {another}") == [one, another]


def test_held_out_objects_ask_for_the_rest_of_their_docstring(modules, tmp_path, make_sentence):
    docs = [" ".join(f"The {make_sentence(4 * d + k).lower()}" for k in range(4)) for d in range(60)]
    docs = [doc.replace(". t", ". T") for doc in docs]
    modules({f"m{d:02d}": f'"""{doc}"""\n' for d, doc in enumerate(docs)})
    prepare(["installed-docs"], tmp_path / "out", PrepareSettings(dev=12))
    rows = (tmp_path / "out" / "dev.tsv").read_text().splitlines()[1:]
    assert len(rows) == 12
    assert {row.replace("\t", " ") for row in rows} < set(docs)


def test_the_standard_library_has_prose():
    names = [name for name, *_ in installed_docs._modules()]
    assert {"textwrap", "json.decoder", "pytest"} <= set(names)
    assert not any(".tests." in name for name in names)
    path = {name: path for name, path, _ in installed_docs._modules()}["textwrap"]
    found = dict(installed_docs._documents_of_module(("textwrap", path)))
    assert any("whitespace" in sentence for sentence in found["textwrap.dedent"])
