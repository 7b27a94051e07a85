"""WebDataset tars of other people: every sentence of them, and damage named where stock reading says nothing."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import fsspec
import pytest
import zstandard
from unit.data.tars import tar_of

from unsee_dist.data import Shards
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.prepare.sources import input_splits, resolve
from unsee_dist.data.prepare.tars import read_tar
from unsee_dist.errors import UserError


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.write_bytes(tar_of(members, form))
    return path


def sentences(name: Path | str, field: str = "text") -> list[str]:
    return [sentence for document in read_tar(str(name), field, lambda _: None) for sentence in document]


def rule(number: int) -> str:
    return f"This is sentence {number} of a small corpus."


def a_tar(path: Path, first: int = 0, count: int = 12) -> Path:
    """Twelve samples of a text, its class and an image."""
    members: list[tuple[str, bytes]] = []
    for number in range(first, first + count):
        members += [(f"{number:06d}.txt", rule(number).encode()), (f"{number:06d}.cls", b"3")]
        members += [(f"{number:06d}.jpg", bytes(range(256)) * 3)]
    return write_tar(path, members)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_text_members_of_every_kind_of_tar(tmp_path: Path, form: int) -> None:
    long = "a" * 120 + "/" + "b" * 120 + ".txt"  # GNU and PAX: a name in a member of its own
    members = [
        ("a.txt", b"One.\nTwo.\n\n"),
        ("__index__.json", b"{}"),
        (".hidden.txt", b"no"),
        ("x.cls", b"1"),
    ]
    members += [
        ("b.txt.gz", gzip.compress(b"Three.")),
        ("c.txt.zst", zstandard.compress(b"Four.")),
        ("UPPER.TXT", "Fünf.".encode()),
    ]
    if form != tarfile.USTAR_FORMAT:
        members.append((long, b"Long."))
    expected = ["One.", "Two.", "Three.", "Four.", "Fünf."] + (
        ["Long."] if form != tarfile.USTAR_FORMAT else []
    )
    assert sentences(write_tar(tmp_path / "t.tar", members, form)) == expected


def test_json_members_by_field(tmp_path: Path) -> None:
    members = [
        ("a.json", json.dumps({"text": "One.", "id": 1}).encode()),
        ("b.json", json.dumps({"text": ["Two.", "Three."]}).encode()),
        ("c.jsonl", b'{"text": "Four."}\n{"text": "Five."}\n'),
        ("d.json.gz", gzip.compress(b'{"text": "Six."}')),
        ("e.ndjson.gz", gzip.compress(b'{"text": "Seven."}\n{"text": "Eight."}\n')),
    ]
    assert sentences(write_tar(tmp_path / "t.tar", members)) == [
        "One.",
        "Two.",
        "Three.",
        "Four.",
        "Five.",
        "Six.",
        "Seven.",
        "Eight.",
    ]
    with pytest.raises(UserError, match=r"t.tar member a.json has no field 'body' .* --field"):
        sentences(tmp_path / "t.tar", "body")


def test_members_that_are_no_text_are_counted(tmp_path: Path) -> None:
    """In the table and in the index; they are no sentences that were dropped."""
    a_tar(tmp_path / "t.tar")
    for _ in range(2):  # the second time from the index
        report = prepare([str(tmp_path / "t.tar")], tmp_path / "out", PrepareSettings(), processes=1)
        assert (report.read, report.kept, report.dropped, report.members) == (12, 12, {}, 24)
        assert "tar members that are not text, or hidden" in report.table().columns[0]._cells
    counters = (Shards(tmp_path / "out").index.preparation or {})["counters"]
    assert counters == {"read": 12, "tar members that are not text, or hidden": 24}


def with_links(path: Path, target: str = "a.txt") -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("a.txt", b"The first sentence is here."),
            ("__c__/x.txt", b"The third sentence is here."),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, kind in (
            ("b.txt", tarfile.LNKTYPE),
            ("below/c.txt", tarfile.SYMTYPE),
            ("d.png", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, f"../{target}" if "/" in name else target
            tar.addfile(member)
        for name in ("__key__", "._a.txt", ".hidden.txt"):
            tar.addfile(tarfile.TarInfo(name))
        folder, pipe = tarfile.TarInfo("below"), tarfile.TarInfo("pipe.txt")
        folder.type, pipe.type = tarfile.DIRTYPE, tarfile.FIFOTYPE
        tar.addfile(folder)
        tar.addfile(pipe)
    return path


def test_a_file_with_two_names_and_folders_of_any_name_are_read_and_the_rest_is_counted(
    tmp_path: Path,
) -> None:
    name = with_links(tmp_path / "t.tar")
    assert sentences(name) == [
        "The first sentence is here.",
        "The third sentence is here.",
        "The first sentence is here.",
        "The first sentence is here.",
    ]
    report = prepare([str(name)], tmp_path / "out", PrepareSettings(), processes=1)
    assert (report.read, report.kept, report.members) == (
        4,
        2,
        5,
    )  # d.png, __key__, two hidden ones, the pipe


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"t.tar member b.txt is a link to gone.txt, which is not a file of this tar"
    ):
        sentences(with_links(tmp_path / "t.tar", "gone.txt"))


@pytest.mark.parametrize("ring", [("a.txt",), ("a.txt", "b.txt")])
def test_links_in_a_ring_are_named(tmp_path: Path, ring: tuple[str, ...]) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name, target in zip(ring, (*ring[1:], ring[0]), strict=True):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    with pytest.raises(
        UserError, match=r"t.tar member a.txt is a link to .*, which is not a file of this tar"
    ):
        sentences(path)


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "a,b", "GNU.sparse.size": "9"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"},
    ],
)
def test_a_sparse_file_whose_map_is_text_is_damage(tmp_path: Path, headers: dict[str, str]) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.txt")
        member.size, member.pax_headers = 512, headers
        tar.addfile(member, io.BytesIO(b"words\n" * 85 + b"no"))
    with pytest.raises(UserError, match=r"t.tar is damaged"):
        sentences(path)


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for number in range(5):
            writer.write({"__key__": f"{number:06d}", "txt": rule(number), "json": {"text": "x"}})
    assert [one for one in sentences(tmp_path / "w.tar") if one != "x"] == [rule(n) for n in range(5)]


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.8, 0.99])
def test_a_cut_tar_is_named_wherever_it_was_cut(tmp_path: Path, share: float) -> None:
    whole = a_tar(tmp_path / "t.tar")
    end = whole.read_bytes().rstrip(b"\0")
    (tmp_path / "cut.tar").write_bytes(end[: int(len(end) * share)])
    with pytest.raises(UserError, match=r"cut.tar"):
        sentences(tmp_path / "cut.tar")


def test_a_tar_cut_between_two_members_is_named(tmp_path: Path) -> None:
    with tarfile.open(a_tar(tmp_path / "t.tar")) as tar:
        at = tar.getmembers()[9].offset
    (tmp_path / "cut.tar").write_bytes((tmp_path / "t.tar").read_bytes()[:at])
    with pytest.raises(UserError, match=r"cut.tar ends without its end mark .*: the file is cut off"):
        sentences(tmp_path / "cut.tar")


def test_a_tar_cut_inside_a_header_or_a_payload_names_the_member_before(tmp_path: Path) -> None:
    with tarfile.open(a_tar(tmp_path / "t.tar")) as tar:
        ninth, tenth = tar.getmembers()[8:10]
    for at, sentence in (
        (tenth.offset + 100, f"ends without its end mark after {ninth.name}: the file is cut off"),
        (ninth.offset_data + 100, f"is damaged after its member {ninth.name}, at byte {tenth.offset}"),
    ):
        (tmp_path / "cut.tar").write_bytes((tmp_path / "t.tar").read_bytes()[:at])
        with pytest.raises(UserError, match=sentence):
            sentences(tmp_path / "cut.tar")


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_tar_with_a_sparse_file_is_whole(tmp_path: Path, form: str) -> None:
    with (tmp_path / "a.bin").open("wb") as file:
        file.write(b"head")
        file.truncate(5 << 20)
    (tmp_path / "b.txt").write_text(rule(1))
    command = ["tar", "-C", tmp_path, f"--format={form}", "-S", "-cf", tmp_path / "t.tar", "a.bin", "b.txt"]
    subprocess.run(command, check=True)
    assert (tmp_path / "t.tar").stat().st_size < 1 << 20
    assert sentences(tmp_path / "t.tar") == [rule(1)]


@pytest.mark.parametrize("damage", ["flipped", "zeroed"])
def test_a_damaged_header_is_named_where_stock_reading_says_nothing(tmp_path: Path, damage: str) -> None:
    from webdataset.tariterators import tar_file_iterator

    with tarfile.open(a_tar(tmp_path / "t.tar")) as tar:
        at = tar.getmembers()[18].offset
    data = bytearray((tmp_path / "t.tar").read_bytes())
    data[at : at + 512] = (
        bytes(512) if damage == "zeroed" else bytes([data[at] ^ 1]) + data[at + 1 : at + 512]
    )
    (tmp_path / "t.tar").write_bytes(data)
    with (tmp_path / "t.tar").open("rb") as file:  # the negative control: half of it, without an error
        assert sum(1 for _ in tar_file_iterator(file)) == 18
    with pytest.raises(UserError, match=rf"t.tar is damaged after its member 000005.jpg, at byte {at}"):
        sentences(tmp_path / "t.tar")


def test_what_follows_the_end_of_a_tar_is_damage(tmp_path: Path) -> None:
    path = a_tar(tmp_path / "t.tar")
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match=r"t.tar is damaged"):
        sentences(path)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([("a.txt", b"\x80\x81")], "member a.txt is not UTF-8"),
        ([("a.txt", "a sentence".encode("utf-16"))], "member a.txt is UTF-16 text .its byte order mark"),
        ([("a.txt", "a sentence of many".encode("utf-16-le"))], "member a.txt is UTF-16LE text .without"),
        ([("a.txt", b"one\nt\0wo\n")], "member a.txt is not text .it has a NUL byte in line 2"),
        ([("a.txt.zst", 2 * zstandard.compress(b"x") + b"more")], "member a.txt.zst cannot be decompressed"),
        ([("a.txt.gz", b"no gzip")], "member a.txt.gz cannot be decompressed"),
        ([("a.txt.zst", zstandard.compress(b"x" * 99)[:-3])], "member a.txt.zst cannot be decompressed"),
        ([("a.json", b"[1")], "member a.json is not JSON"),
        ([("a.jpg", b"x"), ("b.cls", b"1")], r"has no member .txt, .json, .jsonl \(it has .cls, .jpg\)"),
    ],
)
def test_a_wrong_member_is_named(tmp_path: Path, members: list[tuple[str, bytes]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sentences(write_tar(tmp_path / "t.tar", members))


@pytest.mark.parametrize("pack", [zstandard.compress, gzip.compress])
def test_a_member_of_several_frames_is_read_whole(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    ending = "zst" if pack is zstandard.compress else "gz"
    data = pack(b"first sentence\n") + pack(b"") + pack(b"second sentence\n") + bytes(20)
    path = write_tar(tmp_path / "t.tar", [(f"a.txt.{ending}", data)])
    assert sentences(path) == ["first sentence", "second sentence"]


def test_what_a_reader_raises_is_not_said_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the system's errors only those of the file itself are about it."""
    path = write_tar(tmp_path / "t.tar", [("a.txt", b"one")])

    def bug(*_: object) -> None:
        raise FileNotFoundError("a mistake of ours")

    monkeypatch.setattr("unsee_dist.data.prepare.tars._of_member", bug)
    with pytest.raises(FileNotFoundError, match="a mistake of ours"):
        sentences(path)


def test_no_tar_is_a_sentence(tmp_path: Path) -> None:
    for name, data in (("empty.tar", b""), ("text.tar", b"no tar at all" * 100)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            sentences(tmp_path / name)
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(a_tar(tmp_path / "t.tar").read_bytes()))
    with pytest.raises(UserError, match=r"t.tar.gz .* Unpack it first"):
        list(input_splits([str(tmp_path / "t.tar.gz")], "text", 1000))


def test_braces_globs_folders_and_urls_name_the_same_tars(tmp_path: Path) -> None:
    paths = [a_tar(tmp_path / f"corpus-{number:03d}.tar", 12 * number) for number in range(3)]
    names = [str(path) for path in paths]
    assert resolve([f"{tmp_path}/corpus-{{000..002}}.tar"]) == names
    assert resolve([f"{tmp_path}/corpus-00{{0,1,2}}.tar"]) == names
    assert resolve([f"{tmp_path}/corpus-*.tar"]) == names
    assert resolve([str(tmp_path)]) == names
    system = fsspec.filesystem("memory")
    for path in paths:
        system.pipe(f"/tars/{path.name}", path.read_bytes())
    urls = resolve(["memory://tars/corpus-{000..002}.tar"])
    assert [sentences(url) for url in urls] == [sentences(name) for name in names]


def test_a_missing_one_of_the_braces_is_named(tmp_path: Path) -> None:
    a_tar(tmp_path / "c-0.tar")
    with pytest.raises(UserError, match=r"c-1.tar does not exist"):
        prepare([f"{tmp_path}/c-{{0..1}}.tar"], tmp_path / "out", PrepareSettings())


def test_a_corpus_of_tars_is_that_of_its_text_on_any_number_of_processes(tmp_path: Path) -> None:
    for number in range(3):
        a_tar(tmp_path / f"corpus-{number:03d}.tar", 12 * number)
    (tmp_path / "text.txt").write_text("\n".join(map(rule, range(36))) + "\n")
    given = [f"{tmp_path}/corpus-{{000..002}}.tar"]
    for processes in (1, 2):
        prepare(given, tmp_path / f"out-{processes}", PrepareSettings(), processes=processes)
    prepare([str(tmp_path / "text.txt")], tmp_path / "text", PrepareSettings())
    one, two, text = (tmp_path / name / "shard-000000.tar" for name in ("out-1", "out-2", "text"))
    assert one.read_bytes() == two.read_bytes() == text.read_bytes()
    assert Shards(tmp_path / "out-1").sentences == 36
