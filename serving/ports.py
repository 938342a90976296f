"""Ports to listen on: checked before a server starts, so that the error names the port and the flag."""

from __future__ import annotations

import contextlib
import errno
import socket

from common.errors import UserError


def free_ports(count: int = 3, host: str = "127.0.0.1") -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def check_ports(host: str, ports: dict[str, int]) -> dict[str, int]:
    """Replace each 0 by a free port, and refuse what cannot be listened on before anything is started.

    Parameters
    ----------
    host : str
        The address to listen on.
    ports : dict of str to int
        Name (``http`` for the flag ``--http-port``) -> port.

    Returns
    -------
    dict of str to int
        The same names with ports that are free now.

    Raises
    ------
    UserError
        When a port is taken, given twice, out of range or not allowed, or the host is not of this machine.
    """
    wanted = [port for port in ports.values() if port]
    for name, port in ports.items():
        flag = f"--{name}-port"
        if not 0 <= port < 65536:
            raise UserError(f"{flag} {port} is not a port: choose one from 1 to 65535")
        if port and wanted.count(port) > 1:
            raise UserError(f"port {port} is given twice: choose another with {flag}")
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # As Triton does; without it a port would count as taken for a minute after its last use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError as error:
                raise UserError(f"port {port} is for the system: choose one above 1023 with {flag}") from error
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise UserError(f"port {port} is taken: choose another with {flag}") from error
                raise UserError(f"cannot listen on --host {host} ({error.strerror or error})") from error
    spare = iter(port for port in free_ports(3 + len(wanted)) if port not in wanted)
    return {name: port or next(spare) for name, port in ports.items()}
