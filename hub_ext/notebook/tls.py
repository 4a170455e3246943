"""Keeps the failure of one TLS connection from being told to another: a preload of Dask's schedulers, workers and clients.

OpenSSL keeps a queue of errors for each thread. CPython reads and writes without emptying it first
(python/cpython#148594), and OpenSSL 3.4 and newer leave the errors of system calls there: after somebody hung up, the next
read from a connection in good health raises BrokenPipeError. Dask takes that for the end of that connection, so that a
client loses its cluster because a worker closed something. Here the queue is emptied before each read and write.

Importing this module is all there is to do; what has no OpenSSL that can be called stays as it is.
"""

from __future__ import annotations

import _ssl
import ctypes
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from tornado.iostream import SSLIOStream

__all__ = ["mend"]

METHODS: Final = ("read_from_fd", "write_to_fd", "_do_ssl_handshake")
"""Where tornado's streams call OpenSSL."""
_MENDED: Final = "_hangang_mended"


def mend(stream: type[SSLIOStream] = SSLIOStream) -> bool:
    """Empty OpenSSL's queue of errors before each of the stream's calls; whether that is possible here.

    Done twice, it changes nothing.
    """
    forget = _forget_errors()
    if forget is None:
        return False
    if _MENDED not in vars(stream):
        for name in METHODS:
            setattr(stream, name, _with_nothing_before(getattr(stream, name), forget))
        setattr(stream, _MENDED, True)
    return True


def _forget_errors() -> Callable[[], Any] | None:
    try:
        # Of the very library that the module `ssl` uses, wherever that is.
        forget = ctypes.PyDLL(_ssl.__file__).ERR_clear_error
    except (AttributeError, OSError):
        return None
    forget.argtypes, forget.restype = (), None
    return forget


def _with_nothing_before(call: Callable[..., Any], forget: Callable[[], Any]) -> Callable[..., Any]:
    @wraps(call)
    def clean(*arguments: Any, **options: Any) -> Any:
        forget()
        return call(*arguments, **options)

    return clean


mend()
