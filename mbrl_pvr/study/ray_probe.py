"""Before a study starts on Ray: every node has this package, reads and writes the study's folder, and has a clock.

Nothing that a run computes depends on a clock: locks are the kernel's, durations are of one process. Clocks that differ
only make the times in logs and progress files hard to compare, so that they are told and not refused.
"""

import logging
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from mbrl_pvr import __version__
from mbrl_pvr.errors import ConfigError, StorageError, Unavailable
from mbrl_pvr.storage import TEMPORARY, remove_files, write_new

PATIENCE = 60.0  # seconds for all nodes together
APART = 2.0  # seconds between clocks that are worth a word
_log = logging.getLogger(__name__)


def probe(ray: Any, path: Path) -> None:
    """StorageError for a node that does not read or write the folder `path`, ConfigError for one with another version
    of this package or none, Unavailable for one that does not answer. A clock that differs is a warning.
    """
    mark = path / f".probe-{secrets.token_hex(8)}{TEMPORARY}"
    names = {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in _alive(ray)}
    try:
        write_new(mark, mark.name.encode())
        for node, seen in _on_each(ray, look, str(mark)).items():
            _judge(names[node], seen, path, _answer(mark, node))
        for node in names:
            apart, within = _clock(ray, node)
            if abs(apart) - within > APART:
                _log.warning(
                    "the clock of node %s is %.1f s %s ours (measured to %.1f s): results do not depend on it, "
                    "but times in logs do",
                    *(names[node], abs(apart), "ahead of" if apart > 0 else "behind", within),
                )
    finally:
        with suppress(StorageError):
            remove_files([p for p in (mark, *(_answer(mark, node) for node in names)) if p.exists()])


def _alive(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _answer(mark: Path, node: str) -> Path:
    return mark.with_name(f"{mark.name.removesuffix(TEMPORARY)}-{node}{TEMPORARY}")


def look(mark: str) -> tuple[str, str]:
    """On a node: read the driver's file and write one beside it; our version, and what went wrong."""
    import ray

    place, node = Path(mark), ray.get_runtime_context().get_node_id()
    try:
        place.read_bytes()
    except OSError as error:
        return __version__, f"does not see what this machine ({socket.gethostname()}) writes: {error.strerror}"
    try:
        write_new(_answer(place, node), node.encode())
    except StorageError as error:
        return __version__, f"cannot write: {error.what}"
    return __version__, ""


def now() -> float:
    """On a node: what its clock shows."""
    return time.time()


def _on_each(ray: Any, function: Any, *arguments: Any) -> dict[str, Any]:
    """What a function returns on every node, by the node's id."""
    from ray.exceptions import RayError

    tasks = {_on(ray, function, node["NodeID"], *arguments): node for node in _alive(ray)}
    ready, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=PATIENCE)
    if late:
        slow = ", ".join(str(tasks[task]["NodeManagerHostname"]) for task in late)
        hint = "Look at it with `ray status`; is all of it taken by other work, or is it going?"
        raise Unavailable(f"nodes of Ray do not answer within {PATIENCE:.0f} s: {slow}", "--engine ray", hint)
    found = {}
    for task in ready:
        node = tasks[task]
        try:
            found[node["NodeID"]] = ray.get(task)
        except RayError as error:
            text = str(error).strip().rpartition("\n")[2]
            hint = "Every node needs mbrl-pvr in the Python that runs `ray start`"
            what = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) cannot work: {text}"
            raise Unavailable(what, "--engine ray", hint) from error
    return found


def _on(ray: Any, function: Any, node: str, *arguments: Any) -> Any:
    """A task on one node, whatever else runs there."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote(*arguments)


def _judge(node: str, seen: tuple[str, str], path: Path, answer: Path) -> None:
    version, wrong = seen
    if version != __version__:
        what = f"node {node} has mbrl-pvr {version}, this machine {__version__}"
        raise ConfigError(what, "--engine ray", "Install the same version everywhere")
    if not wrong and not answer.exists():
        wrong = f"writes where this machine ({socket.gethostname()}) does not see it"
    if wrong:
        hint = "Give a --dir on storage that all nodes share, such as NFS, under the same path"
        raise StorageError(f"node {node} {wrong}", str(path), hint)


def _clock(ray: Any, node: str) -> tuple[float, float]:
    """Seconds that a node's clock is ahead of ours, and how far that may be off; its worker is warm by now."""
    before = time.time()
    there = ray.get(_on(ray, now, node), timeout=PATIENCE)
    after = time.time()
    return there - (before + after) / 2, (after - before) / 2
