# SPDX-License-Identifier: Apache-2.0
"""Names of models: which of them use the network, what is asked there, and what is sent along."""

import hashlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import conversion
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.hub import HUB, STARTS, fetch, locate
from conversion.weights import read

ROOT = Path(__file__).parents[1]
COMMIT = "0" * 40
SECRET = "hf_ofTheUser"
Files = dict[str, bytes]


class FakeHub(ThreadingHTTPServer):
    """A hub on this machine: what it has, and what it was asked, with the token that came along."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folders: dict[str, Files] = {}
        self.asked: list[tuple[str, str | None]] = []

    @property
    def tokens(self) -> set[str | None]:
        return {token for _, token in self.asked}


class _Answer(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        path, token = unquote(self.path.partition("?")[0]), self.headers["Authorization"]
        self.server.asked.append((path, token))
        parts = path.removeprefix("/api/models").split("/", 3)
        files = self.server.folders.get("/".join(parts[1:3]))
        rest = parts[3] if len(parts) > 3 else ""
        if files is None or ("private" in path and not token):
            return self._send(404, b"", error="RepoNotFound")
        if rest.startswith("resolve/"):
            content = files[rest.split("/", 2)[2]]
            return self._send(200, content)
        listed = [{"type": "file", "path": f, "size": len(x), "oid": "1"} for f, x in files.items()]
        siblings = [{"rfilename": name} for name in files]
        model = {"id": "/".join(parts[1:3]), "sha": COMMIT, "siblings": siblings}
        return self._send(200, json.dumps(listed if "tree/" in rest else model).encode())

    do_HEAD = do_GET

    def _send(self, status: int, content: bytes, error: str = "") -> None:
        self.send_response(status)
        headers = {
            "Content-Length": str(len(content)),
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            **({"X-Error-Code": error} if error else {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def connections(monkeypatch) -> list[object]:
    """Every address that this process connects to, or asks for."""
    seen: list[object] = []

    def watched(real: Callable, place: int) -> Callable:
        return lambda *given: seen.append(given[place]) or real(*given)

    monkeypatch.setattr(socket, "getaddrinfo", watched(socket.getaddrinfo, 0))
    monkeypatch.setattr(socket.socket, "connect", watched(socket.socket.connect, 1))
    return seen


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[FakeHub]:
    """The hub of this process, whose user is logged in and has nothing in the cache."""
    with FakeHub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "token").write_text(SECRET)
        for name, value in {
            "ENDPOINT": endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        yield server
        server.shutdown()


def contents(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


MISTYPED = {
    "runs/nots": "model runs/nots: there is no such folder here; if .* write hub:runs/nots",
    "/nowhere/notes": "model /nowhere/notes does not exist: there is no such folder or file$",
    "runs/phase1/checkpoints": "does not exist: there is no such folder or file$",
    "runs/latest-rank0.pt": "does not exist: there is no such folder or file$",
    "modernbert-base": "does not exist.*starts by name are modernbert-base:stable, ",
    "modernbert-base:stable": "add --online .*download answerdotai/ModernBERT-base-training-check",
    "bioclinical-modernbert-base:stable": "add --online .*thomas-sounack/BioClinical-ModernBERT-",
}


@pytest.mark.parametrize("name", MISTYPED)
def test_only_hub_and_online_connect(name, hub, connections) -> None:
    with pytest.raises(InputError, match=MISTYPED[name]) as error:
        conversion.from_pretrained(name)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError):
        load_tokenizer(name)
    assert connections == []
    with pytest.raises(InputError):
        conversion.from_pretrained(f"hub:{name}" if name == "runs/nots" else name, online=True)
    assert bool(connections) == (name == "runs/nots" or name in STARTS)


def test_a_folder_needs_no_network(hub, connections, folder) -> None:
    conversion.from_pretrained(folder, online=True)
    load_tokenizer(str(folder))
    assert connections == []


def test_the_hub_is_asked_without_the_users_token(hub, connections, folder, tmp_path) -> None:
    hub.folders["x/y"] = {**contents(folder), "unwanted.gguf": b"x", "code.py": b"x"}
    model = conversion.from_pretrained("hub:x/y")
    here = read(folder)
    for name, x in model.weights.params.items():
        np.testing.assert_array_equal(x, here.params[name])
    assert (model.origin, model.config) == ("x/y", here.config)
    assert hub.tokens == {None}
    assert {name for name, _ in hub.asked if "resolve" in name}.isdisjoint(
        f"/x/y/resolve/{COMMIT}/{name}" for name in ("unwanted.gguf", "code.py")
    )
    assert set(connections) == {"127.0.0.1", ("127.0.0.1", hub.server_port)}
    # What was fetched is found again without the hub.
    hub.asked.clear()
    assert load_tokenizer("hub:x/y").directory == locate("hub:x/y")
    assert hub.asked == []


def test_a_token_is_sent_if_its_file_is_given(hub, folder, tmp_path, monkeypatch) -> None:
    hub.folders["x/private"] = contents(folder)
    with pytest.raises(InputError, match=r"RepositoryNotFoundError.*gated one needs --hub-token"):
        fetch("hub:x/private")
    assert hub.tokens == {None}
    hub.asked.clear()
    file = tmp_path / "mine"
    file.write_text("hf_given\n")
    conversion.from_pretrained("hub:x/private", hub_token_file=file)
    assert hub.tokens == {"Bearer hf_given"}
    for content in ("", "two words", "é"):
        file.write_text(content)
        with pytest.raises(InputError, match=r"mine .*token") as error:
            fetch("hub:x/private", token_file=file)
        assert not content or content not in str(error.value)
    with pytest.raises(InputError, match="nothing cannot be read"):
        fetch("hub:x/private", token_file=tmp_path / "nothing")


def test_pickles_are_fetched_only_where_there_is_nothing_else(hub, folder) -> None:
    files = contents(folder)
    hub.folders["x/both"] = {**files, "pytorch_model.bin": b"x"}
    fetch("hub:x/both")
    assert not (locate("hub:x/both") / "pytorch_model.bin").exists()
    del files["model.safetensors"]
    hub.folders["x/old"] = {**files, "pytorch_model.bin": b"x"}
    fetch("hub:x/old")
    assert (locate("hub:x/old") / "pytorch_model.bin").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["hub:", "hub:x", "hub:x/", "hub:/y", "hub:x/y/z", "hub:a b/c"])
def test_a_name_on_the_hub_has_two_parts(name, hub) -> None:
    with pytest.raises(InputError, match=r"hub:OWNER/NAME|neither be fetched"):
        fetch(name)
    assert hub.asked == []


@pytest.mark.parametrize("name", [n for n, start in STARTS.items() if start.file.endswith(".pt")])
def test_starts_by_name(name, hub, folder) -> None:
    start = STARTS[name]
    hub.folders = {start.hub_id: {start.file: b"pickle"}, start.tokenizer: contents(folder)}
    fetch(name)
    assert hub.asked == []
    with pytest.raises(InputError, match=f"--online.* hf download {start.hub_id} {start.file}"):
        locate(name)
    fetch(name, online=True)
    assert locate(name).read_bytes() == b"pickle"
    assert locate(name).as_posix().endswith(start.file)
    assert locate(f"{HUB}{start.hub_id}/{start.file}") == locate(name)
    fetch(name, "tokenizer", online=True)
    assert load_tokenizer(name).fingerprint == load_tokenizer(str(folder)).fingerprint
    hub.shutdown()
    hub.server_close()
    fetch(name, online=True)  # the hub is down: what is in the cache will do


# Made up, since the hub's own names are not known here: by run, and by phase.
BY_RUN = ("phase1_base", "phase1_large", "phase2_base", "phase2_large", "_phase2_bio_base")
BY_PHASE = ("base/Phase 1", "large/Phase 1", "base/Phase 2", "large/Phase 2", "base/bio")


@pytest.mark.parametrize("runs", [BY_RUN, BY_PHASE])
def test_starts_are_found_by_words(runs, hub) -> None:
    files = [f"{run}/ep0-ba{step}-rank0.pt" for run in runs for step in (900, 12000, 8000)]
    files = {name: name.encode() for name in files} | {"README.md": b""}
    hub.folders["thomas-sounack/BioClinical-ModernBERT-checkpoints"] = files
    kinds = {
        "bioclinical-modernbert-base:stable": 0,
        "bioclinical-modernbert-large:stable": 1,
        "bioclinical-modernbert-base:final": 2,
        "bioclinical-modernbert-large:final": 3,
        "bio-modernbert-base:final": 4,
    }
    for name, number in kinds.items():
        fetch(name, online=True)
        assert locate(name).read_text() == f"{runs[number]}/ep0-ba12000-rank0.pt"
    with pytest.raises(InputError, match=r"0 runs of .* are called large bio; give one of its 15"):
        fetch("bio-modernbert-large:final", online=True)
    files[f"again/{runs[0]}/ep0-ba1-rank0.pt"] = b""
    with pytest.raises(InputError, match=r"2 runs of .* as hub:thomas-sounack/BioClinical.*/FILE"):
        fetch("bioclinical-modernbert-base:stable", online=True)


def test_libraries_report_nothing() -> None:
    check = "import bcmb_jax, huggingface_hub.constants as c; print(c.HF_HUB_DISABLE_TELEMETRY)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n"
