"""Finding and fetching weights: a local server that cuts, lies and counts; the hub's cache; and no network at all."""

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import pvr_zoo
from pvr_zoo import WeightsError, WeightsUnavailable, weights
from pvr_zoo.specs import WeightsSource

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content`; breaks the connection after `cut` bytes while `cuts` lasts."""

    content = CONTENT
    cut = 0
    cuts = 0
    ranges = True
    requests: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.requests.append(wanted)
        if self.path == "/missing":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start and start >= len(self.server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            total = len(self.server.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(self.server.content) - start))
        self.end_headers()
        stop = len(self.server.content)
        if self.server.cuts > 0:
            self.server.cuts -= 1
            stop = start + self.server.cut
        self.wfile.write(self.server.content[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    server = Server(("127.0.0.1", 0), Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def source(server: Server, path: str = "/net.pth", sha256: str = SHA256) -> WeightsSource:
    return WeightsSource(url=f"http://127.0.0.1:{server.server_address[1]}{path}", sha256=sha256)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_fetched_once_then_found(server: Server) -> None:
    path, origin, sha256 = weights.locate(source(server))
    assert path.read_bytes() == CONTENT
    assert (origin, sha256) == (source(server).url, SHA256)
    assert weights.locate(source(server))[0] == path
    assert server.requests == [""]
    assert files(path.parent) == {"net.pth"}


def test_cut_connection_is_continued(server: Server) -> None:
    server.cut, server.cuts = 300_000, 2
    path, _, _ = weights.locate(source(server))
    assert path.read_bytes() == CONTENT
    assert server.requests == ["", "bytes=300000-", "bytes=600000-"]


def test_a_later_call_continues_where_the_earlier_gave_up(server: Server) -> None:
    server.cut, server.cuts = 100_000, 3
    with pytest.raises(WeightsUnavailable, match="no answer"):
        weights.locate(source(server))
    path = weights.place(source(server))
    assert files(path.parent) == {"net.pth.part"}
    weights.locate(source(server))
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=300000-"


def test_a_server_that_cannot_continue_starts_again(server: Server) -> None:
    server.ranges, server.cut, server.cuts = False, 300_000, 1
    assert weights.locate(source(server))[0].read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(server: Server) -> None:
    path = weights.place(source(server))
    path.parent.mkdir(parents=True)
    path.with_name("net.pth.part").write_bytes(CONTENT + b"more")
    assert weights.locate(source(server))[0].read_bytes() == CONTENT


def test_a_whole_part_is_taken_without_fetching_it_again(server: Server) -> None:
    path = weights.place(source(server))
    path.parent.mkdir(parents=True)
    path.with_name("net.pth.part").write_bytes(CONTENT)
    assert weights.locate(source(server))[0].read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_a_part_of_something_else_is_caught_by_the_hash(server: Server) -> None:
    path = weights.place(source(server))
    path.parent.mkdir(parents=True)
    path.with_name("net.pth.part").write_bytes(b"x" * 1000)
    with pytest.raises(WeightsError, match=f"expected is {SHA256}"):
        weights.locate(source(server))
    assert files(path.parent) == {"net.pth.bad"}
    assert weights.locate(source(server))[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "message"), [(b"<html>log in</html>", "looks like HTML"), (b"", "0 bytes"), (b"other", "hashes to")]
)
def test_wrong_bytes_are_kept_aside(server: Server, content: bytes, message: str) -> None:
    server.content = content
    with pytest.raises(WeightsError, match=message) as caught:
        weights.locate(source(server))
    folder = weights.place(source(server)).parent
    assert files(folder) == {"net.pth.bad"}
    assert str(folder / "net.pth.bad") in caught.value.hint


def test_server_errors_say_what_to_fetch_and_where_to_put_it(server: Server) -> None:
    with pytest.raises(WeightsUnavailable, match="404") as caught:
        weights.locate(source(server, "/missing"))
    assert str(weights.place(source(server, "/missing"))) in caught.value.hint
    assert SHA256 in caught.value.hint


def test_an_unreachable_host_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(WeightsUnavailable, match="no answer"):
        weights.locate(WeightsSource(url="http://127.0.0.1:9/net.pth", sha256=SHA256))


def test_two_processes_fetch_once(server: Server) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(weights.locate(source(server))[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert server.requests == [""]


@pytest.mark.parametrize("name", ["resnet18_in1k", "vits16_in1k", "dinov2_vitb14"])
def test_offline_says_everything(name: str) -> None:
    source = pvr_zoo.spec(name).weights
    assert source is not None
    with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE") as caught:
        pvr_zoo.create(name)
    for part in (source.address, source.sha256, str(weights.place(source))):
        assert part in caught.value.hint
    assert caught.value.exit_code == 8
    assert not weights.cache_root().exists()


def test_a_file_put_by_hand_is_used_and_checked() -> None:
    published = pvr_zoo.spec("resnet18_in1k").weights
    assert published is not None
    path = weights.place(published)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not the file")
    with pytest.raises(WeightsError, match=f"expected is {published.sha256}"):
        pvr_zoo.create("resnet18_in1k")


def test_hub_cache_is_found_and_its_content_hash_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of the hub client's cache: blobs named by SHA-256, snapshots by commit, links between them."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub, commit = WeightsSource(hub="timm/some.net"), "a" * 40
    repo = tmp_path / "hub" / "models--timm--some.net"
    for folder in ("blobs", "refs", f"snapshots/{commit}"):
        (repo / folder).mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "blobs" / SHA256).write_bytes(CONTENT)
    os.symlink(f"../../blobs/{SHA256}", repo / "snapshots" / commit / "model.safetensors")
    path, origin, sha256 = weights.locate(hub)
    assert path.read_bytes() == CONTENT
    assert (origin, sha256) == (f"hub timm/some.net@{commit}", SHA256)


def test_unshipped_package_data_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_PACKAGE", tmp_path)
    with pytest.raises(WeightsUnavailable, match="mbrl-pvr pretrain autoencoder"):
        pvr_zoo.create("embedded")


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsUnavailable, match="cannot be written"):
        weights.locate(source(server))
