"""Children that race for a run folder's lock; prints "winners" of each round, and how the losers were answered."""

import os
import signal
import sys
import time
from pathlib import Path

from mbrl_pvr.errors import RunLocked
from mbrl_pvr.lock import lock

ROUNDS, STARTERS = 12, 6


def start(folder: Path) -> tuple[int, int]:
    """A child that tries, says how it went and holds what it has until it is killed; its pid and the pipe to read."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        held = lock(folder)
        os.write(write, b"won")
        time.sleep(60)
        held.release()
    except RunLocked as error:
        os.write(write, str(error).encode())
    os._exit(0)


def race(folder: Path) -> None:
    children = [start(folder) for _ in range(STARTERS)]
    answers = {pid: os.read(pipe, 4096).decode() for pid, pipe in children}
    winners = [pid for pid, answer in answers.items() if answer == "won"]
    named = all(f"process {winners[0]} on " in answer for answer in answers.values() if answer != "won")
    print(f"winners {len(winners)} named {named}", flush=True)
    for pid, pipe in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pipe)


def orphan(folder: Path) -> None:
    """A process takes the lock, forks, and is killed; its child lives on and must not keep the lock."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = lock(folder)
        child = os.fork()
        if child == 0:
            os.write(write, str(os.getpid()).encode())  # from the child: it has let go of the lock by now
            time.sleep(60)
            os._exit(0)
        time.sleep(60)
        held.release()
    child = int(os.read(read, 100))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        lock(folder).release()
        print("orphan free")
    finally:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    for _ in range(ROUNDS):
        race(Path(sys.argv[1]))
    orphan(Path(sys.argv[1]))
