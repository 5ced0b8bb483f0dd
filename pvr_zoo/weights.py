"""Find published weights on this machine, or fetch them: package data, a url with a checksum, or the Hugging Face hub.

Downloads go to a `.part` file that a later attempt continues, are hashed, and are renamed only when the hash fits. The
cache is `$MBRL_PVR_CACHE`, or ~/.cache/mbrl_pvr; `HF_HUB_OFFLINE=1` forbids every network access.
"""

import contextlib
import fcntl
import http.client
import logging
import os
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

from pvr_zoo.checkpoint import check_looks, file_sha256
from pvr_zoo.errors import WeightsError, WeightsUnavailable
from pvr_zoo.specs import WeightsSource

_log = logging.getLogger("pvr_zoo")
_ATTEMPTS = 3
_TIMEOUT_S = 30.0
_BLOCK = 1 << 20
_PACKAGE = Path(__file__).parent


def cache_root() -> Path:
    return Path(os.environ.get("MBRL_PVR_CACHE") or "~/.cache/mbrl_pvr").expanduser()


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def place(source: WeightsSource) -> Path:
    """Where the file lies in the cache; a file put there by hand is used."""
    if source.package:
        return _PACKAGE / source.package
    if source.hub:
        return cache_root() / source.hub.replace("/", "--") / source.file
    tag = source.sha256[:8] or f"{zlib.crc32(source.url.encode()):08x}"
    return cache_root() / tag / source.filename


def locate(source: WeightsSource) -> tuple[Path, str, str]:
    """The file, where it came from in words, and the SHA-256 it must have ("" where none is known).

    Raises WeightsUnavailable, and WeightsError where what arrives is not the file.
    """
    path = place(source)
    if source.package:
        if not path.is_file():
            hint = f"Make it: {source.command}"
            raise WeightsUnavailable("this encoder's weights are not shipped with this copy", str(path), hint)
        return path, "package", source.sha256
    if path.is_file():
        return path, source.address, source.sha256
    if source.hub:
        return _from_hub(source)
    if offline():
        raise unavailable(source, "HF_HUB_OFFLINE is set")
    download(source, path)
    return path, source.address, source.sha256


def unavailable(source: WeightsSource, reason: str) -> WeightsUnavailable:
    """The error for weights that cannot be had now: what to fetch, its checksum, where to put it."""
    sha256 = f" with sha256 {source.sha256}" if source.sha256 else ""
    return WeightsUnavailable(
        f"the weights {source.filename} are not on this machine: {reason}",
        hint=f"Fetch {source.address}{sha256} and put it at {place(source)}, or pass weights=PATH.",
    )


def download(source: WeightsSource, path: Path) -> None:
    """Fetch `source.url` to `path`; an interrupted download is continued, also by a later call."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_name(path.name + ".lock")):
            if path.is_file():
                return  # another process fetched it while this one waited
            _log.info("fetching %s to %s", source.url, path)
            _fetch(source, part)
            _accept(source, part, path)
    except OSError as error:
        raise unavailable(source, f"the cache cannot be written ({error})") from error


def _fetch(source: WeightsSource, part: Path) -> None:
    """Append to `part` until the server has nothing more; tries again where the connection breaks midway."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _append(source.url, part)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416:
                raise unavailable(source, f"the server answers {error.code} {error.reason}") from error
            if source.sha256 and file_sha256(part) == source.sha256:
                return  # whole already: the process that fetched it died before the rename
            part.unlink()  # longer than the file: stale
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            if attempt == _ATTEMPTS or isinstance(reason, socket.gaierror):
                raise unavailable(source, f"no answer ({reason})") from error
    raise unavailable(source, "the server refuses to continue the download")


def _append(url: str, part: Path) -> None:
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "mbrl_pvr", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        continues = answer.status == 206 and _range_start(answer.headers.get("Content-Range", "")) == start
        length = answer.headers.get("Content-Length")
        received = 0
        with part.open("ab" if continues else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                received += len(block)
            file.flush()
            os.fsync(file.fileno())
        if length is not None and received < int(length):
            raise http.client.IncompleteRead(b"", int(length) - received)


def _range_start(content_range: str) -> int:
    match = re.match(r"bytes (\d+)-", content_range)
    return int(match[1]) if match else -1


def _accept(source: WeightsSource, part: Path, path: Path) -> None:
    """Rename a finished download, or put it aside and say why."""
    try:
        check_looks(part)
        sha256 = file_sha256(part)
        if source.sha256 and sha256 != source.sha256:
            raise WeightsError(f"the download hashes to {sha256}, expected is {source.sha256}", where=source.url)
    except WeightsError as error:
        aside = path.with_name(path.name + ".bad")
        part.replace(aside)
        raise WeightsError(error.what, source.url, f"What arrived was kept at {aside}. Try again later.") from error
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process fetches; the others wait. The kernel frees the lock when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _from_hub(source: WeightsSource) -> tuple[Path, str, str]:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    found = huggingface_hub.try_to_load_from_cache(source.hub, source.file, revision=source.revision)
    if not isinstance(found, str):
        if offline():
            raise unavailable(source, "HF_HUB_OFFLINE is set")
        _check_name_resolves(source)
        try:
            found = huggingface_hub.hf_hub_download(source.hub, source.file, revision=source.revision)
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
            reason = str(error).strip().split("\n", 1)[0][:160]
            raise unavailable(source, f"the hub cannot be used ({reason})") from error
    path = Path(found)
    commit = path.parent.name if re.fullmatch(r"[0-9a-f]{40}", path.parent.name) else source.revision
    blob = path.resolve().name  # the hub's cache names large files by their SHA-256
    expected = source.sha256 or (blob if re.fullmatch(r"[0-9a-f]{64}", blob) else "")
    return path, f"hub {source.hub}@{commit}", expected


def _check_name_resolves(source: WeightsSource) -> None:
    """Without a network the hub client retries for half a minute; a failed name look-up says it at once."""
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return
    host = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise unavailable(source, f"{host} cannot be reached ({error})") from error
