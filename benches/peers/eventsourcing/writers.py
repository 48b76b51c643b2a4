"""Clients that append a workload and tell when each append was committed, as kit/src/writers.rs does.

A process for each client, for the interpreter's lock would make sixteen threads one.
"""

import json
import multiprocessing
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field

ATTEMPTS_MAX = 1000


def write(connect, options):
    clients = defaultdict(list)
    with open(options.file) as lines:
        for line in lines:
            append = json.loads(line)
            clients[append["client"]].append(append)

    fork = multiprocessing.get_context("fork")
    ready = fork.Barrier(len(clients) + 1, timeout=60)
    done = fork.SimpleQueue()
    for appends in clients.values():
        fork.Process(target=process, args=(connect, appends, options, ready, done), daemon=True).start()
    ready.wait()
    began = time.monotonic()
    results = [done.get() for _ in clients]
    seconds = time.monotonic() - began

    for result in results:
        if isinstance(result, Exception):
            raise result
    commits = [commit for result in results for commit in result.commits]
    failed = sum(result.failed for result in results)
    refused = next((result.refused for result in results if result.refused), None)
    if refused:
        print(f"{failed} attempts refused, one of them: {refused}", file=sys.stderr)
    if options.log:
        with open(options.log, "w") as log:
            log.writelines(commits)
    return {"committed": len(commits), "failed": failed, "seconds": seconds}


@dataclass
class Result:
    commits: list = field(default_factory=list)
    failed: int = 0
    refused: str | None = None


def process(connect, appends, options, ready, done):
    try:
        append = connect()
    except Exception:
        ready.abort()
        raise
    ready.wait()
    try:
        done.put(client(append, appends, options))
    except Exception as error:
        done.put(RuntimeError(f"append refused for good: {error!r}"))


def client(append, appends, options):
    result = Result()
    began = time.monotonic()
    for i, one in enumerate(appends):
        if options.rate:
            time.sleep(max(0.0, began + i / options.rate - time.monotonic()))
        for attempt in range(1, ATTEMPTS_MAX + 1):
            if options.seconds and time.monotonic() - began >= options.seconds:
                return result
            try:
                append(one)
                break
            except Exception as error:
                if attempt == ATTEMPTS_MAX:
                    raise
                result.failed += 1
                result.refused = result.refused or repr(error)
                time.sleep(0.001)
        result.commits.append(f"{one['stream']},{one['first']},{len(one['events'])},{time.time_ns()}\n")
    return result
