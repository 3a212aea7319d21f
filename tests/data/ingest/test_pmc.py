# SPDX-License-Identifier: Apache-2.0
"""PMC's distribution: the newest version of an article, under a wanted licence, once."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bcmb_jax.data.ingest import read
from bcmb_jax.data.ingest.pmc import (
    BROKEN_DETAILS,
    NO_LICENSE,
    OTHER_LICENSE,
    RETRACTED,
    read_package,
)
from bcmb_jax.data.ingest.record import SUPERSEDED, Document
from bcmb_jax.errors import InputError
from tests.fixtures.xml_files import BOMB, FRONT, KEPT, SECRET, jats, pack, records, write


def test_a_package_gives_the_articles_in_it(tmp_path: Path) -> None:
    whole = jats("<p>a</p>", front="")
    content = pack(
        [
            ("./PMC1/a.nxml", whole),
            ("PMC1/a.jpg", "\0" * 600),
            ("PMC1/._a.nxml", "\0"),
            ("PMC1/cut.xml", f"<article>\n\n<p>{SECRET}"),
            ("../../b.xml", whole),
            ("/c\n\x1b[31m.XML", whole),
            ("x" * 300 + ".xml", whole),
            ("bomb.xml", BOMB + whole),
            ("data.xml", "<data/>"),
            ("last.xml", whole),
        ],
        links=("link.xml", "link.jpg"),
    )
    (file,) = write(tmp_path, {"PMC000.tar.gz": gzip.compress(content)})
    found = [(r.file, r.line, getattr(r, "reason", "a")) for r in records([file], read_package)]
    assert found == [
        ("PMC000.tar.gz!./PMC1/a.nxml", 1, "a"),
        ("PMC000.tar.gz!PMC1/cut.xml", 3, "broken: not well-formed XML"),
        ("PMC000.tar.gz!../../b.xml", 1, "a"),
        ("PMC000.tar.gz!/c\\n\\x1b[31m.XML", 1, "a"),
        (f"PMC000.tar.gz!…{'x' * 196}.xml", 1, "a"),
        ("PMC000.tar.gz!bomb.xml", 2, "broken: XML that declares entities"),
        ("PMC000.tar.gz!data.xml", 1, "broken: no article element"),
        ("PMC000.tar.gz!last.xml", 1, "a"),
        ("PMC000.tar.gz!link.xml", 1, "broken: not a plain file"),
    ]
    assert [path.name for path in tmp_path.rglob("*")] == ["PMC000.tar.gz"]


def test_a_package_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    text = "".join(str(i * i) for i in range(300))
    content = pack([(f"{i}.xml", jats(f"<p>{text}{i}</p>")) for i in range(20)])
    assert content[2048:2052] != b"\0" * 4
    size = 512 + -(-len(jats(f"<p>{text}0</p>")) // 512) * 512  # of a member
    damaged = bytearray(content)
    damaged[3 * size + 100] ^= 1
    for name, bad, after in [
        ("within a member", content[: 2 * size - 600], 1),
        ("within a header", content[: 2 * size + 100], 2),
        ("between members", content[: 2 * size], 2),
        ("a damaged header", bytes(damaged), 3),
        ("no tar", text.encode(), 0),
        ("nothing", b"", 0),
    ]:
        files = write(tmp_path, {"a.tar": bad})
        message = rf"a.tar is a damaged or incomplete tar file \(after {after} articles\)"
        with pytest.raises(InputError, match=message):
            pytest.fail(f"{name}: {len(records(files, read_package))} records")
    files = write(tmp_path, {"a.tar.gz": gzip.compress(content)[:-50]})
    with pytest.raises(InputError, match=r"a.tar.gz: damaged or incomplete gzip file"):
        records(files, read_package)


def test_the_newest_of_an_article_counts_once(tmp_path: Path) -> None:
    front = FRONT.replace('"pmc">34', '"pmc">{}')

    def package(*pmcids: int) -> bytes:
        articles = [(f"PMC{i}.xml", jats("<p>a</p>", front.format(i))) for i in pmcids]
        return gzip.compress(pack(articles))

    contents: dict[str, str | bytes] = {
        "oa_comm_xml.PMC000xxxxxx.baseline.2024-12-18.tar.gz": package(1, 1025, 3),
        "oa_comm_xml.incr.2024-12-18.tar.gz": package(1, 5),
        "oa_comm_xml.incr.2025-01-03.tar.gz": package(3, 5, 1024),
        "PMC1024.xml": jats("<p>a</p>", front.format(1024)),
        "a.xml": jats("<p>a</p>", front=""),
        "b.xml": jats("<p>a</p>", front=""),
        "more.jsonl": '{"pmcid": "PMC1", "title": "a", "abstract": "b", "body": "c"}\n',
    }
    write(tmp_path, contents)
    articles = read([tmp_path], "pmc")
    for _ in range(2):  # a second reading counts anew
        found = [(r.file.split("_xml.")[-1], getattr(r, "reason", KEPT)) for r in articles]
        assert found == [
            ("incr.2025-01-03.tar.gz!PMC3.xml", KEPT),
            ("incr.2025-01-03.tar.gz!PMC5.xml", KEPT),
            ("incr.2025-01-03.tar.gz!PMC1024.xml", KEPT),
            ("incr.2024-12-18.tar.gz!PMC1.xml", KEPT),
            ("incr.2024-12-18.tar.gz!PMC5.xml", SUPERSEDED),
            ("PMC000xxxxxx.baseline.2024-12-18.tar.gz!PMC1.xml", SUPERSEDED),
            ("PMC000xxxxxx.baseline.2024-12-18.tar.gz!PMC1025.xml", KEPT),
            ("PMC000xxxxxx.baseline.2024-12-18.tar.gz!PMC3.xml", SUPERSEDED),
            ("PMC1024.xml", SUPERSEDED),
            ("a.xml", KEPT),
            ("b.xml", KEPT),
            ("more.jsonl", SUPERSEDED),
        ]


def write_versions(folder: Path, *articles: tuple[int, int, dict[str, Any] | str | None]) -> None:
    """Files as PMC's cloud service has them: number, version, and the content of the .json."""
    for number, version, details in articles:
        name = f"PMC{number}.{version}/PMC{number}.{version}"
        front = FRONT.replace('"pmc">34', f'"pmc">{number}')
        write(folder, {f"{name}.xml": jats(f"<p>version {version}</p>", front), f"{name}.txt": "a"})
        if details is not None:
            text = details if isinstance(details, str) else json.dumps(details)
            write(folder, {f"{name}.json": text})


def outcomes(folder: Path, *licenses: str) -> dict[str, str]:
    """By file, its last line or the reason for leaving it out."""
    return {
        Path(r.file).name.removesuffix(".xml"): (
            r.text.split("\n")[-1] if isinstance(r, Document) else getattr(r, "reason", "")
        )
        for r in read([folder], "pmc", licenses=licenses)
    }


def test_the_highest_version_counts_by_number(tmp_path: Path) -> None:
    versions = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 9), (3, 10), (4, 2), (5, 0), (5, 1)]
    write_versions(tmp_path, *((number, version, None) for number, version in versions))
    write(tmp_path, {"PMC4.xml": jats("<p>undated</p>", FRONT.replace(">34<", ">4<"))})
    assert outcomes(tmp_path) == {
        "PMC1.1": "version 1",
        "PMC2.1": SUPERSEDED,
        "PMC2.2": "version 2",
        "PMC3.1": SUPERSEDED,
        "PMC3.9": SUPERSEDED,
        "PMC3.10": "version 10",
        "PMC4.2": "version 2",
        "PMC5.0": SUPERSEDED,
        "PMC5.1": "version 1",
        "PMC4": SUPERSEDED,
    }


def test_an_older_version_does_not_stand_in_for_an_unwanted_one(tmp_path: Path) -> None:
    write_versions(
        tmp_path,
        (1, 1, {"is_retracted": False, "license_code": "CC BY"}),
        (1, 2, {"is_retracted": True, "license_code": "CC BY"}),
        (2, 1, {"is_retracted": "false", "license_code": "CC BY"}),
        (2, 2, {"is_retracted": False, "license_code": "CC BY-NC"}),
    )
    kept = {"PMC1.1": SUPERSEDED, "PMC1.2": RETRACTED, "PMC2.1": SUPERSEDED}
    assert outcomes(tmp_path) == {**kept, "PMC2.2": "version 2"}
    assert outcomes(tmp_path, "CC BY", "CC0") == {**kept, "PMC2.2": OTHER_LICENSE}


def test_licences_are_those_of_the_json_beside_an_article(tmp_path: Path) -> None:
    details = [
        {"license_code": "CC BY"},
        {"license_code": "cc-by"},
        {"license_code": "CC0", "is_retracted": None},
        {"license_code": "CC BY-ND"},
        {"license_code": None},
        None,
        "[]",
        '{"license_code": "CC BY"',
        {"license_code": "CC BY", "is_retracted": "perhaps"},
        {"license_code": "CC BY", "is_retracted": "TRUE"},
    ]
    write_versions(tmp_path, *((i, 1, text) for i, text in enumerate(details)))
    kept, broken = "version 1", [BROKEN_DETAILS] * 3 + [RETRACTED]
    assert list(outcomes(tmp_path).values()) == [*[kept] * 6, *broken]
    wanted = [*[kept] * 3, OTHER_LICENSE, NO_LICENSE, NO_LICENSE, *broken]
    assert list(outcomes(tmp_path, " CC  BY ", "CC0").values()) == wanted


def test_the_details_may_stand_in_a_folder_of_their_own(tmp_path: Path) -> None:
    write_versions(tmp_path, (1, 1, None))
    write(tmp_path, {"metadata/PMC1.1.json": '{"license_code": "CC BY", "is_retracted": true}'})
    assert outcomes(tmp_path) == {"PMC1.1": RETRACTED}


def test_versions_in_a_package_have_to_be_unpacked(tmp_path: Path) -> None:
    write(tmp_path, {"a.tar": pack([("PMC1.1/PMC1.1.xml", jats("<p>a</p>"))])})
    with pytest.raises(InputError, match=r"a.tar packs versions of articles: unpack"):
        list(read([tmp_path], "pmc"))


def test_licences_are_only_of_pmc(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "text\na\n"})
    with pytest.raises(InputError, match="--licenses chooses among PMC's articles"):
        read([tmp_path], "csv", licenses=["CC BY"])
