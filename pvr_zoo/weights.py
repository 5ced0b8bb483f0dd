"""Find published weights on this machine, or fetch them: package data, a url with a checksum, or the Hugging Face hub.

A download goes to a `.part` file that a later attempt continues, is hashed, and is renamed only when the hash fits; one
process fetches a file, the others wait for it. Settings are environment variables:

- MBRL_PVR_CACHE: the folder of the cache, ~/.cache/mbrl_pvr by default;
- MBRL_PVR_MIRROR: an address that stands before host and path of every url, https://mirror.lab/HOST/PATH;
- MBRL_PVR_TIMEOUT: seconds without a sign of life, or with hardly a byte, after which a connection is given up (30);
- https_proxy, http_proxy, no_proxy: as everywhere;
- HF_HUB_OFFLINE=1: no network access at all;
- HF_ENDPOINT, HF_TOKEN, HF_HOME: the hub's own, for files that lie there.
"""

import contextlib
import fcntl
import http.client
import json
import logging
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pvr_zoo.checkpoint import check_looks, file_sha256
from pvr_zoo.errors import WeightsError, WeightsUnavailable
from pvr_zoo.specs import WeightsSource

Progress = Callable[[WeightsSource, int, int | None], None]  # bytes there, and of how many where the server says so

_log = logging.getLogger("pvr_zoo")
_ATTEMPTS = 3  # in a row that bring less than _GAIN bytes
_GAIN = 1 << 16
_PAUSE_S = 1.0  # before the second attempt, then twice as long each time
_TIMEOUT_S = 30.0
_SLOWEST = 1024  # bytes a second; a connection that stays below it for the whole timeout has stalled
_BLOCK = 1 << 20
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that may be another one a moment later
_PACKAGE = Path(__file__).parent
_gathered: ContextVar[Path | None] = ContextVar("_gathered", default=None)


def cache_root() -> Path:
    return _gathered.get() or Path(os.environ.get("MBRL_PVR_CACHE") or "~/.cache/mbrl_pvr").expanduser()


@contextlib.contextmanager
def gathering(root: Path) -> Iterator[None]:
    """Within, files are found in and fetched to `root` alone, which can then be another machine's MBRL_PVR_CACHE."""
    token = _gathered.set(root)
    try:
        yield
    finally:
        _gathered.reset(token)


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def place(source: WeightsSource) -> Path:
    """Where the file lies in the cache; a file put there by hand is used."""
    root = cache_root()
    if source.package:
        return _PACKAGE / source.package
    if source.hub:
        version = "" if source.revision == "main" else f"@{source.revision}"
        return root / (source.hub.replace("/", "--") + version) / source.file
    tag = source.sha256[:8] or f"{zlib.crc32(source.url.encode()):08x}"
    return root / tag / source.filename


def locate(source: WeightsSource, progress: Progress | None = None) -> tuple[Path, str, str]:
    """The file, where it came from in words, and the SHA-256 it must have ("" where none is known).

    Raises WeightsUnavailable, and WeightsError where what arrives is not the file.
    """
    path = place(source)
    if source.package:
        if not path.is_file():
            hint = f"Make it: {source.command}"
            raise WeightsUnavailable("this encoder's weights are not shipped with this copy", str(path), hint)
        return path, "package", source.sha256
    if not path.is_file():
        if _gathered.get() is None and source.hub and (found := _in_hub_cache(source)):
            return found
        if offline():
            raise unavailable(source, "HF_HUB_OFFLINE is set")
        remote = _on_hub(source) if source.hub else _Remote(source, _mirrored(source.url), source.sha256)
        _download(remote, path, progress)
    origin = _origin(path)
    return path, origin.get("origin", source.address), source.sha256 or origin.get("sha256", "")


def unavailable(source: WeightsSource, reason: str) -> WeightsUnavailable:
    """The error for a file that cannot be had now: what to fetch, its checksum, where to put it."""
    sha256 = f" with sha256 {source.sha256}" if source.sha256 else ""
    return WeightsUnavailable(
        f"{source.filename} is not on this machine: {reason}",
        hint=f"Fetch {source.address}{sha256} and put it at {place(source)}.",
    )


# --------------------------------------------------------------------------------------------------------- one file


@dataclass(frozen=True)
class _Remote:
    """A file to fetch. `commit` is that of the hub, and `secret` a header that goes to the first host only."""

    source: WeightsSource
    url: str
    sha256: str
    commit: str = ""
    secret: str = field(default="", repr=False)


def _download(remote: _Remote, path: Path, progress: Progress | None) -> None:
    """Fetch to `path`; an interrupted download is continued, also by a later call."""
    part = _beside(path, ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(_beside(path, ".lock")):
            if path.is_file():
                return  # another process fetched it while this one waited
            _log.info("fetching %s to %s", remote.url, path)
            _fetch(remote, part, progress or _unseen)
            _accept(remote, part, path)
    except OSError as error:
        raise unavailable(remote.source, f"the cache cannot be written ({error})") from error


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _unseen(source: WeightsSource, done: int, total: int | None) -> None:
    pass


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process fetches; the others wait. The kernel frees the lock when its holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("another process fetches %s; waiting for it", path.stem)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(remote: _Remote, part: Path, progress: Progress) -> None:
    """Append to `part` until the server has nothing more; tries again as long as attempts bring something."""
    timeout = _timeout()
    idle, most = 0, _size(part)
    cause: Exception
    while True:
        try:
            _append(remote, part, timeout, progress)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and _size(part):
                if remote.sha256 and file_sha256(part) == remote.sha256:
                    return  # whole already: the process that fetched it died before the rename
                part.unlink()  # longer than the file: stale
                continue
            reason, cause = f"the server answers {error.code} {error.reason}", error
            final = error.code not in _BUSY
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason, cause = f"no answer ({getattr(error, 'reason', None) or error})", error
            final = isinstance(getattr(error, "reason", None), socket.gaierror)
        idle = 0 if _size(part) >= most + _GAIN else idle + 1
        most = max(most, _size(part))
        if final or idle == _ATTEMPTS:
            raise unavailable(remote.source, reason) from cause
        _log.info("%s; trying %s again", reason, remote.url)
        time.sleep(_PAUSE_S * 2 ** max(0, idle - 1))


def _append(remote: _Remote, part: Path, timeout: float, progress: Progress) -> None:
    """One request for what `part` lacks.

    What the server says the file is (an entity tag or a date) is kept beside `part`, so that a file which has changed
    is not continued; without that and without a checksum nothing is.
    """
    tag = _beside(part, ".tag")
    same = tag.read_text() if tag.exists() else ""
    start = _size(part) if remote.sha256 or same else 0
    request = urllib.request.Request(remote.url, headers={"User-Agent": "mbrl_pvr", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    if start and same:
        request.add_header("If-Range", same)
    if remote.secret:
        request.add_unredirected_header("Authorization", remote.secret)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        if answer.status == 206 and _range_start(answer.headers) != start:
            part.unlink(missing_ok=True)
            raise http.client.HTTPException("the server continues at another place")
        if answer.status != 206:
            start = 0
            part.unlink(missing_ok=True)
            _write_tag(tag, answer.headers)
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        _require_space(part.parent, 0 if length is None else int(length))
        progress(remote.source, start, total)
        done = start
        with part.open("ab") as file:
            for block in _blocks(answer, timeout):
                file.write(block)
                done += len(block)
                progress(remote.source, done, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done < total:
            raise http.client.IncompleteRead(b"", total - done)


def _blocks(answer: Any, timeout: float) -> Iterator[bytes]:
    """What arrives, as it arrives. TimeoutError where hardly anything does; for silence the socket has its own."""
    since, received = time.monotonic(), 0
    while block := _read(answer):
        yield block
        received += len(block)
        passed = time.monotonic() - since
        if passed >= timeout:
            if received < _SLOWEST * passed:
                raise TimeoutError(f"{received} bytes in {passed:.0f} s")
            since, received = time.monotonic(), 0


def _read(answer: Any) -> bytes:
    try:
        block: bytes = answer.read1(_BLOCK)
    except TimeoutError:
        raise
    except OSError as error:  # a broken connection, told apart from a broken disk
        raise ConnectionError(str(error)) from error
    return block


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _range_start(headers: Any) -> int:
    match = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _write_tag(tag: Path, headers: Any) -> None:
    """A strong entity tag, or else the date: what `If-Range` may ask for (RFC 9110, section 13.1.5)."""
    named = headers.get("ETag", "")
    tag.write_text(named if named.startswith('"') else headers.get("Last-Modified", ""))


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WeightsUnavailable(f"the download needs {needed:,} bytes, {free:,} are free", where=str(folder))


def _accept(remote: _Remote, part: Path, path: Path) -> None:
    """Rename a finished download, or put it aside and say why."""
    _beside(part, ".tag").unlink(missing_ok=True)
    try:
        check_looks(part)
        sha256 = file_sha256(part)
        if remote.sha256 and sha256 != remote.sha256:
            raise WeightsError(f"the download hashes to {sha256}, expected is {remote.sha256}")
    except WeightsError as error:
        aside = _beside(path, ".bad")
        part.replace(aside)
        raise WeightsError(error.what, remote.url, f"What arrived was kept at {aside}. Try again later.") from error
    if remote.commit:
        origin = {"origin": f"hub {remote.source.hub}@{remote.commit}", "sha256": sha256}
        _beside(path, ".origin").write_text(json.dumps(origin))
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _origin(path: Path) -> dict[str, str]:
    """What was noted beside a file of the hub: its commit, which the path does not tell, and its checksum."""
    try:
        noted: dict[str, str] = json.loads(_beside(path, ".origin").read_text())
    except (OSError, ValueError):  # put there by hand, or the machine lost power
        return {}
    return noted


# --------------------------------------------------------------------------------------------------------- settings


def _mirrored(url: str) -> str:
    mirror = os.environ.get("MBRL_PVR_MIRROR", "").strip().rstrip("/")
    if mirror and urllib.parse.urlsplit(mirror).scheme not in ("http", "https"):
        raise WeightsUnavailable(f"MBRL_PVR_MIRROR={mirror} is no http or https address")
    return f"{mirror}/{url.partition('://')[2]}" if mirror else url


def _timeout() -> float:
    text = os.environ.get("MBRL_PVR_TIMEOUT", "").strip()
    try:
        seconds = float(text) if text else _TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise WeightsUnavailable(f"MBRL_PVR_TIMEOUT={text} is no number of seconds")
    return seconds


# -------------------------------------------------------------------------------------------------------------- hub


def _in_hub_cache(source: WeightsSource) -> tuple[Path, str, str] | None:
    """The file as another program has fetched it: as `locate` says it."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(source.hub, source.file, revision=source.revision)
    if not isinstance(found, str):
        return None
    path = Path(found)
    commit = path.parent.name if re.fullmatch(r"[0-9a-f]{40}", path.parent.name) else source.revision
    blob = path.resolve().name  # the hub's cache names large files by their SHA-256
    return path, f"hub {source.hub}@{commit}", source.sha256 or (blob if _is_sha256(blob) else "")


def _is_sha256(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _on_hub(source: WeightsSource) -> _Remote:
    """The commit that the revision means now and the checksum that the hub has for the file. Raises WeightsUnavailable.

    The hub's client keeps nothing of a download that is cut off by the end of its process, so only asking is its part.
    """
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils import build_hf_headers

    _check_name_resolves(source)
    try:
        address = huggingface_hub.hf_hub_url(source.hub, source.file, revision=source.revision)
        facts = huggingface_hub.get_hf_file_metadata(address)
    except errors.GatedRepoError as error:
        page = f"{_hub_address()}/{source.hub}"
        raise unavailable(source, f"the hub asks for a login: accept the terms at {page}, set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise unavailable(source, f"the hub has no {source.hub}, or it is private: set HF_TOKEN") from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise unavailable(source, f"{source.hub} has no {source.file} at revision {source.revision}") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, _transport_error()) as error:
        reason = str(error).strip().split("\n", 1)[0][:160]
        raise unavailable(source, f"the hub cannot be used ({reason})") from error
    commit, tag = facts.commit_hash or "", facts.etag or ""
    if not commit:
        raise unavailable(source, f"{_hub_address()} does not answer as the hub does (no commit)")
    sha256 = source.sha256 or (tag if _is_sha256(tag) else "")
    secret = build_hf_headers().get("authorization", "")
    url = huggingface_hub.hf_hub_url(source.hub, source.file, revision=commit)
    return _Remote(source, url, sha256, commit, secret)


def _transport_error() -> type[Exception]:
    """The base of what the hub client's HTTP library raises; which library that is depends on the client's version."""
    from huggingface_hub.errors import HfHubHTTPError

    return next((base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"), OSError)


def _hub_address() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _check_name_resolves(source: WeightsSource) -> None:
    """Without a network the hub client retries for half a minute; a failed name look-up says it at once."""
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return
    host = urllib.parse.urlsplit(_hub_address()).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise unavailable(source, f"{host} cannot be reached ({error})") from error
