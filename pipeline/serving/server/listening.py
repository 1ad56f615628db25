"""Taking a port."""

import socket

from pipeline.project.errors import PipelineError


def listen(host: str, port: int) -> socket.socket:
    """Takes a port at once, before anything is loaded, so that early connections wait.

    Raises:
        PipelineError: it cannot be taken; most often it is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends an answer at once only on a socket whose protocol is named; on others it takes 40 ms more.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        reason = f"--host {host} --port {port} cannot be listened on: {error.strerror}"
        raise PipelineError(f"{reason}; name another --port, or 0 for a free one") from None
    return listening
