"""Downloads from a local server that cuts, stalls, drips, lies and refuses; two processes; proxy, mirror and a hub."""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pvr_zoo import WeightsError, WeightsUnavailable, weights
from pvr_zoo.specs import WeightsSource

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "c0ffee" * 6 + "abcd"


class Server(ThreadingHTTPServer):
    """Serves `content` at every path; `faults` says what goes wrong with the first answers, one after the other."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.tag = ""
        self.ranges = True
        self.faults: list[tuple[str, int]] = []  # ("cut" | "stall" | "drip" | "shift", bytes) or ("status", code)
        self.seen: list[dict[str, str]] = []
        self.going = threading.Event()  # set when a stalling answer has sent its part
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def ranges_asked(self) -> list[str]:
        return [request.get("Range", "") for request in self.seen if request["method"] == "GET"]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):  # the hub's client asks more than it is told to
            self._refuse(404)
            return
        self._note()
        kind, value = self.server.faults.pop(0) if self.server.faults else ("", 0)
        if kind == "status":
            self._refuse(value)
            return
        if self._hub():
            return
        content = self.server.content
        start = self._start() if kind != "shift" else value
        if start and start >= len(content):
            self._refuse(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        self._send(content[start:], kind, value)

    def do_HEAD(self) -> None:
        self._note()
        self._hub()

    def _note(self) -> None:
        self.server.seen.append({"method": self.command, "path": self.path, **dict(self.headers.items())})

    def _refuse(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for key, value in ({"Content-Length": "0", "Connection": "close"} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def _start(self) -> int:
        wanted = self.headers.get("Range", "")
        if not wanted or not self.server.ranges or self.headers.get("If-Range", self.server.tag) != self.server.tag:
            return 0
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def _send(self, body: bytes, kind: str, value: int) -> None:
        self.close_connection = True
        if kind == "drip":
            while body and not self.server.over.wait(0.02):
                self.wfile.write(body[:1])
                body = body[1:]
            return
        self.wfile.write(body[:value] if kind in ("cut", "stall") else body)
        if kind == "stall":
            self.wfile.flush()
            self.server.going.set()
            self.server.over.wait(30)

    def _hub(self) -> bool:
        """Answer as the hub does under /ORG/NAME/resolve/REVISION/FILE: the file itself lies on another host."""
        if "/resolve/" not in self.path or self.path.startswith("/cdn/"):
            return False
        if self.path.startswith("/org/gated/"):
            self._refuse(401, X_Error_Code="GatedRepo", X_Error_Message="no access")
        elif self.path.startswith("/org/gone/"):
            self._refuse(404, X_Error_Code="RepoNotFound")
        elif self.path.startswith("/org/empty/"):
            self._refuse(404, X_Error_Code="EntryNotFound")
        elif self.path.startswith("/org/broken/"):
            self._refuse(400)
        else:
            cdn = self.server.address.replace("127.0.0.1", "localhost") + "/cdn" + self.path
            sha256 = "0" * 64 if self.path.startswith("/org/other/") else SHA256
            facts = {"X_Repo_Commit": COMMIT, "X_Linked_Etag": f'"{sha256}"', "X_Linked_Size": str(len(CONTENT))}
            self._refuse(302, Location=cdn, ETag='"pointer"', **facts)
        return True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(weights, "_PAUSE_S", 0.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def source(server: Server, sha256: str = SHA256, path: str = "/net.pth") -> WeightsSource:
    return WeightsSource(url=server.address + path, sha256=sha256)


def fetched(source: WeightsSource) -> bytes:
    return weights.locate(source)[0].read_bytes()


def part_of(source: WeightsSource, content: bytes, tag: str = "") -> None:
    """What a process that died may have left."""
    path = weights.place(source)
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").write_bytes(content)
    if tag:
        path.with_name(path.name + ".part.tag").write_text(tag)


def files(source: WeightsSource) -> set[str]:
    return {path.name for path in weights.place(source).parent.iterdir() if path.suffix != ".lock"}


# ------------------------------------------------------------------------------------------ whole, once, and in view


def test_fetched_once_then_found(server: Server) -> None:
    path, origin, sha256 = weights.locate(source(server))
    assert path.read_bytes() == CONTENT
    assert (origin, sha256) == (source(server).url, SHA256)
    assert weights.locate(source(server))[0] == path
    assert server.ranges_asked == [""]
    assert files(source(server)) == {"net.pth"}


def test_progress_is_told_and_nothing_stands_under_the_name_before_the_end(server: Server) -> None:
    told: list[tuple[int, int | None]] = []

    def progress(of: WeightsSource, done: int, total: int | None) -> None:
        assert not weights.place(source(server)).exists()
        told.append((done, total))

    server.faults = [("cut", 300_000)]
    weights.locate(source(server), progress=progress)
    assert [total for _, total in told] == [len(CONTENT)] * len(told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[0][0] == 0 and told[-1][0] == len(CONTENT)


def test_a_folder_for_another_machine(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with weights.gathering(tmp_path / "for_nodes"):
        weights.locate(source(server))
    assert not weights.cache_root().exists()
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "for_nodes"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetched(source(server)) == CONTENT


# ------------------------------------------------------------------------------------------------- broken connections


def test_cut_connection_is_continued(server: Server) -> None:
    server.faults = [("cut", 300_000), ("cut", 300_000)]
    assert fetched(source(server)) == CONTENT
    assert server.ranges_asked == ["", "bytes=300000-", "bytes=600000-"]


def test_a_line_that_breaks_again_and_again_gets_there(server: Server) -> None:
    server.faults = [("cut", 100_000)] * 9
    assert fetched(source(server)) == CONTENT
    assert len(server.seen) == 10


def test_a_later_call_continues_where_the_earlier_gave_up(server: Server) -> None:
    server.faults = [("cut", 300_000), ("cut", 0), ("cut", 10), ("cut", 0)]
    with pytest.raises(WeightsUnavailable, match="no answer"):
        weights.locate(source(server))
    assert files(source(server)) == {"net.pth.part", "net.pth.part.tag"}
    assert fetched(source(server)) == CONTENT
    assert server.ranges_asked[-1] == "bytes=300010-"
    assert files(source(server)) == {"net.pth"}


def test_silence_is_a_broken_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBRL_PVR_TIMEOUT", "0.3")
    server.faults = [("stall", 200_000), ("stall", 200_000)]
    assert fetched(source(server)) == CONTENT
    assert server.ranges_asked == ["", "bytes=200000-", "bytes=400000-"]


@pytest.mark.parametrize(("fault", "reason"), [(("stall", 0), "timed out"), (("drip", 0), r"\d+ bytes in 0 s")])
def test_a_server_that_hardly_speaks_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, fault: tuple[str, int], reason: str
) -> None:
    monkeypatch.setenv("MBRL_PVR_TIMEOUT", "0.2")
    server.faults = [fault] * 3
    with pytest.raises(WeightsUnavailable, match=reason):
        weights.locate(source(server))


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_timeout_that_is_none(server: Server, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MBRL_PVR_TIMEOUT", text)
    with pytest.raises(WeightsUnavailable, match="MBRL_PVR_TIMEOUT"):
        weights.locate(source(server))


def test_an_unreachable_host_is_unavailable(server: Server) -> None:
    with pytest.raises(WeightsUnavailable, match="no answer"):
        weights.locate(WeightsSource(url="http://127.0.0.1:9/net.pth", sha256=SHA256))


# ------------------------------------------------------------------------------------------------- parts of something


def test_a_server_that_cannot_continue_starts_again(server: Server) -> None:
    server.ranges = False
    server.faults = [("cut", 300_000)]
    assert fetched(source(server)) == CONTENT
    assert files(source(server)) == {"net.pth"}


def test_a_server_that_continues_elsewhere_starts_again(server: Server) -> None:
    server.faults = [("cut", 300_000), ("shift", 400_000)]
    assert fetched(source(server)) == CONTENT
    assert server.ranges_asked == ["", "bytes=300000-", ""]


def test_a_part_longer_than_the_file_is_dropped(server: Server) -> None:
    part_of(source(server), CONTENT + b"more")
    assert fetched(source(server)) == CONTENT


def test_a_whole_part_is_taken_without_fetching_it_again(server: Server) -> None:
    part_of(source(server), CONTENT)
    assert fetched(source(server)) == CONTENT
    assert server.ranges_asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_of_something_else_is_caught_by_the_hash(server: Server) -> None:
    part_of(source(server), b"x" * 1000)
    with pytest.raises(WeightsError, match=f"expected is {SHA256}"):
        weights.locate(source(server))
    assert files(source(server)) == {"net.pth.bad"}
    assert fetched(source(server)) == CONTENT


@pytest.mark.parametrize(
    ("tag", "asked"), [("", ""), ('"old"', "bytes=1000-"), ('"new"', "bytes=1000-")], ids=["none", "old", "same"]
)
def test_without_a_checksum_only_the_same_file_is_continued(server: Server, tag: str, asked: str) -> None:
    server.tag = '"new"'
    unchecked = source(server, sha256="")
    part_of(unchecked, CONTENT[:1000] if tag == '"new"' else b"x" * 1000, tag)
    assert fetched(unchecked) == CONTENT
    assert server.ranges_asked == [asked]
    assert files(unchecked) == {"net.pth"}


# ------------------------------------------------------------------------------------------------------ wrong answers


@pytest.mark.parametrize(
    ("content", "message"), [(b"<html>log in</html>", "looks like HTML"), (b"", "0 bytes"), (b"other", "hashes to")]
)
def test_wrong_bytes_are_kept_aside(server: Server, content: bytes, message: str) -> None:
    server.content = content
    with pytest.raises(WeightsError, match=message) as caught:
        weights.locate(source(server))
    assert files(source(server)) == {"net.pth.bad"}
    assert str(weights.place(source(server)).with_name("net.pth.bad")) in caught.value.hint
    server.content = CONTENT
    assert fetched(source(server)) == CONTENT


@pytest.mark.parametrize("code", [403, 404])
def test_refusals_are_told_at_once_with_what_to_fetch_and_where_to_put_it(server: Server, code: int) -> None:
    server.faults = [("status", code)]
    with pytest.raises(WeightsUnavailable, match=str(code)) as caught:
        weights.locate(source(server))
    for part in (source(server).url, SHA256, str(weights.place(source(server)))):
        assert part in caught.value.hint
    assert len(server.seen) == 1


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.faults = [("status", 503), ("status", 429)]
    assert fetched(source(server)) == CONTENT
    server.faults = [("status", 503)] * 3
    with pytest.raises(WeightsUnavailable, match="503"):
        weights.locate(source(server, path="/other.pth"))


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsUnavailable, match="cannot be written"):
        weights.locate(source(server))


def test_a_disk_without_room_is_told_first(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 0, 10**6))
    with pytest.raises(WeightsUnavailable, match="needs 1,048,576 bytes, 1,000,000 are free"):
        weights.locate(source(server))


# ----------------------------------------------------------------------------------------------------------- settings


def test_offline_asks_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for asked in (source(server), WeightsSource(hub="org/name")):
        with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE"):
            weights.locate(asked)
    assert server.seen == []


def test_a_mirror_is_asked_instead_and_does_not_show(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBRL_PVR_MIRROR", f"{server.address}/mirror/")
    published = WeightsSource(url="https://weights.invalid/a/net.pth", sha256=SHA256)
    assert weights.locate(published)[1:] == (published.url, SHA256)
    assert [request["path"] for request in server.seen] == ["/mirror/weights.invalid/a/net.pth"]
    monkeypatch.setenv("MBRL_PVR_MIRROR", "/some/folder")
    with pytest.raises(WeightsUnavailable, match="MBRL_PVR_MIRROR"):
        weights.locate(source(server, path="/other.pth"))


def test_a_proxy_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
    monkeypatch.setenv("http_proxy", server.address)
    assert fetched(WeightsSource(url="http://weights.invalid/net.pth", sha256=SHA256)) == CONTENT
    assert [request["path"] for request in server.seen] == ["http://weights.invalid/net.pth"]
    monkeypatch.setattr(urllib.request, "_opener", None)


# ---------------------------------------------------------------------------------------------------------- processes

LOCATE = """
import json, sys
from pvr_zoo import ZooError, weights
from pvr_zoo.specs import WeightsSource
print("ready", flush=True)
for text in sys.stdin:
    try:
        path, *rest = weights.locate(WeightsSource(**json.loads(text)))
        print(json.dumps([path.read_bytes().hex()[:8], *rest]), flush=True)
    except ZooError as error:
        print(json.dumps([type(error).__name__, str(error)]), flush=True)
"""


class Process:
    """A Python that locates what it is told, one source after the other."""

    def __init__(self, **env: str) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        self.child = subprocess.Popen([sys.executable, "-c", LOCATE], env=kept | env, **pipes)
        assert self.child.stdin is not None and self.child.stdout is not None
        self.stdin, self.stdout = self.child.stdin, self.child.stdout

    def start(self) -> None:
        assert self.stdout.readline() == "ready\n"

    def ask(self, **source: str) -> None:
        self.stdin.write(json.dumps(source) + "\n")
        self.stdin.flush()

    def answer(self) -> Any:
        return json.loads(self.stdout.readline())

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
        self.stdin.close()
        self.stdout.close()


def test_two_processes_one_file(server: Server) -> None:
    """The second waits for the first; where the first is killed, it goes on with what is there."""
    wanted = {"url": source(server).url, "sha256": SHA256}
    with Process() as first, Process() as second:
        first.start(), second.start()
        first.ask(**wanted)
        second.ask(**wanted)
        assert first.answer() == second.answer() == [CONTENT.hex()[:8], wanted["url"], SHA256]
        assert server.ranges_asked == [""]

        wanted["url"] += "2"
        server.faults = [("stall", 400_000)]
        first.ask(**wanted)
        assert server.going.wait(20)
        second.ask(**wanted)
        while not _arrived(WeightsSource(**wanted), 400_000):
            threading.Event().wait(0.01)
        first.child.send_signal(signal.SIGKILL)
        assert second.answer()[0] == CONTENT.hex()[:8]
        assert server.ranges_asked[1:] == ["", "bytes=400000-"]
        assert files(WeightsSource(**wanted)) == {"net.pth", "net.pth2"}


def _arrived(source: WeightsSource, count: int) -> bool:
    path = weights.place(source)
    part = path.with_name(path.name + ".part")
    return part.exists() and part.stat().st_size == count


def test_threads_fetch_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pvr_zoo")
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(fetched(source(server)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert server.ranges_asked == [""]


# ---------------------------------------------------------------------------------------------------------------- hub


def test_the_hub_end_to_end(server: Server, tmp_path: Path) -> None:
    """Another process with HF_ENDPOINT, so that the hub's own client does the asking: continued, checked, kept."""
    with Process(HF_ENDPOINT=server.address, HF_TOKEN="secret", HF_HOME=str(tmp_path / "hf")) as process:
        process.start()
        server.faults = [("", 0), ("cut", 300_000)]  # the redirect, then the file
        process.ask(hub="org/name", revision="main")
        answer = process.answer()
        assert answer == [CONTENT.hex()[:8], f"hub org/name@{COMMIT}", SHA256], answer
        asked = [(request["method"], request["path"], request.get("Range", "")) for request in server.seen]
        page = f"/org/name/resolve/{COMMIT}/model.safetensors"
        assert asked == [
            ("HEAD", "/org/name/resolve/main/model.safetensors", ""),
            ("GET", page, ""),
            ("GET", "/cdn" + page, ""),
            ("GET", page, "bytes=300000-"),
            ("GET", "/cdn" + page, "bytes=300000-"),
        ]
        sent = [request.get("Authorization", request.get("authorization", "")) for request in server.seen]
        assert sent == ["Bearer secret", "Bearer secret", "", "Bearer secret", ""], "a token for the hub alone"

        process.ask(hub="org/name", revision="main")
        assert process.answer()[1:] == [f"hub org/name@{COMMIT}", SHA256]
        assert len(server.seen) == len(asked), "found, not fetched"

        process.ask(hub="org/other")
        kind, message = process.answer()
        assert kind == "WeightsError" and f"expected is {'0' * 64}" in message
        refusals = {
            "gated": "accept the terms at",
            "gone": "the hub has no org/gone, or it is private",
            "empty": "org/empty has no model.safetensors at revision main",
            "broken": "the hub cannot be used",
        }
        for name, wanted in refusals.items():
            process.ask(hub=f"org/{name}")
            kind, message = process.answer()
            assert kind == "WeightsUnavailable" and wanted in message and "huggingface.co" in message, message
    kept = {path.name for path in (weights.cache_root() / "org--name").iterdir() if path.suffix != ".lock"}
    assert kept == {"model.safetensors", "model.safetensors.origin"}
