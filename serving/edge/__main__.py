"""The edge as a process: settings as the first line of standard input, whose end means that the parent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import sys
from pathlib import Path

from serving.edge.front import Front, log
from serving.edge.settings import EdgeSettings


async def serve(settings: EdgeSettings) -> int:
    """Answer until SIGTERM, SIGINT or the end of standard input; the exit code."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    front = Front(settings)
    try:
        await front.start()
    except OSError as error:
        log(f"the HTTP edge cannot listen on {settings.host}:{settings.port}: {error.strerror or error}")
        return 1
    orphaned = asyncio.Event()

    def be_orphaned() -> None:
        loop.remove_reader(sys.stdin.fileno())
        orphaned.set()
        stop.set()

    loop.add_reader(sys.stdin.fileno(), be_orphaned)
    await stop.wait()
    await front.stop()
    if orphaned.is_set():
        # Whoever would have cleaned up is gone.
        Path(settings.upstream).unlink(missing_ok=True)
    return 0


def main() -> int:
    """Run the edge."""
    settings = EdgeSettings.from_line(sys.stdin.buffer.readline())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * (settings.max_connections + settings.max_requests)
    if 0 <= soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(hard, wanted), hard))
    # What is there now stays; requests leave no cycles behind.
    gc.freeze()
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
