"""A stale error of OpenSSL's, left there as by another connection that broke, and a connection in good health."""

from __future__ import annotations

import _ssl
import ctypes
import errno
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dask_gateway_server.tls import new_keypair
from tornado.iostream import SSLIOStream

from hub_ext.notebook import tls

ERR_LIB_SYS = 2


class Unmended(SSLIOStream):
    """As tornado has it, whatever was imported before."""


for name in tls.METHODS:
    method = getattr(SSLIOStream, name)
    setattr(Unmended, name, getattr(method, "__wrapped__", method))


class Mended(Unmended):
    """As `tls` makes it."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Both ends of one encrypted connection, after its handshake; the first does not block."""
    certificate, key = new_keypair("test")
    (tmp_path / "crt").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    asking = ssl.create_default_context(cafile=str(tmp_path / "crt"))
    asking.check_hostname = False
    here, there = socket.socketpair()
    with ThreadPoolExecutor() as threads:
        other = threads.submit(serving.wrap_socket, there, server_side=True)
        one = asking.wrap_socket(here)
    one.setblocking(False)
    try:
        yield one, other.result()
    finally:
        one.close()
        other.result().close()


def stream_of(kind: type[SSLIOStream], connection: ssl.SSLSocket) -> SSLIOStream:
    """What of a stream reads and writes, without an event loop."""
    stream = object.__new__(kind)
    stream._ssl_accepting, stream.socket = False, connection
    # The end of the handshake: tickets for another session, which empty the queue when they are read.
    assert stream.read_from_fd(bytearray(16)) is None
    return stream


def leave_an_error() -> None:
    """What OpenSSL keeps for this thread when the other side of some connection has hung up."""
    library = ctypes.PyDLL(_ssl.__file__)
    library.ERR_new()
    library.ERR_set_error(ctypes.c_int(ERR_LIB_SYS), ctypes.c_int(errno.EPIPE), None)


def test_another_connections_error_ends_a_healthy_one_where_nothing_is_mended(
    pair: tuple[ssl.SSLSocket, ssl.SSLSocket],
) -> None:
    """Why `tls` is there. Where this fails, Python has mended it, and `tls` may go."""
    stream = stream_of(Unmended, pair[0])
    leave_an_error()
    with pytest.raises(OSError, match=r"Broken pipe|unknown error|SYS"):
        stream.read_from_fd(bytearray(16))


def test_a_healthy_connection_reads_and_writes_on(pair: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    assert tls.mend(Mended)
    one, other = pair
    stream = stream_of(Mended, one)
    buffer = bytearray(16)
    leave_an_error()
    assert stream.read_from_fd(buffer) is None, "there is nothing to read yet"
    other.sendall(b"an answer")
    leave_an_error()
    one.setblocking(True)
    assert stream.read_from_fd(buffer) == len(b"an answer")
    leave_an_error()
    assert stream.write_to_fd(memoryview(b"a question")) == len(b"a question")
    assert other.recv(16) == b"a question"


def test_mending_twice_changes_nothing() -> None:
    assert tls.mend(Mended)
    before = {name: getattr(Mended, name) for name in tls.METHODS}
    assert tls.mend(Mended)
    assert {name: getattr(Mended, name) for name in tls.METHODS} == before


def test_without_an_openssl_that_can_be_called_all_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(path: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "PyDLL", none)

    class Stream(Unmended):
        pass

    assert not tls.mend(Stream)
    assert Stream.read_from_fd is Unmended.read_from_fd


def test_dask_s_own_streams_are_mended_by_the_import() -> None:
    assert all(hasattr(getattr(SSLIOStream, name), "__wrapped__") for name in tls.METHODS)
