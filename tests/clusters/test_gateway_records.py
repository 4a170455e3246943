"""The gateway's own records, on both kinds of database: kept encrypted, and read again by the next gateway."""

from __future__ import annotations

import asyncio
import base64

import pytest
from cryptography.fernet import InvalidToken
from dask_gateway_server.backends.db_base import DataManager, JobStatus, timestamp

import hub_ext.clusters.backend  # noqa: F401  fits the tables to both databases
from tests.support.databases import Database, empty_database

__all__ = ["empty_database"]
KEY = base64.urlsafe_b64encode(b"k" * 32)


def url_of(database: Database) -> str:
    return database.url.replace("postgresql://", "postgresql+psycopg://")


def test_records_are_read_again_as_they_were(empty_database: Database) -> None:
    async def write_and_read() -> None:
        first = DataManager(url=url_of(empty_database), encrypt_keys=[KEY])
        cluster = first.create_cluster("student", {"profile": "cpu"}, {"version": 1})
        worker = first.create_worker(cluster)
        first.update_worker(worker, state={"lease": "l1"}, status=JobStatus.STOPPED, stop_time=timestamp())
        first.update_cluster(cluster, state={"wish": 7}, status=JobStatus.RUNNING, stop_time=timestamp())
        kept = first.get_cluster(cluster.name)

        again = DataManager(url=url_of(empty_database), encrypt_keys=[KEY]).get_cluster(cluster.name)
        assert (again.username, again.state, again.options) == ("student", {"wish": 7}, {"profile": "cpu"})
        assert (again.token, again.tls_key, again.tls_cert) == (kept.token, kept.tls_key, kept.tls_cert)
        assert (again.start_time, again.stop_time) == (kept.start_time, kept.stop_time)
        assert again.workers[worker.name].state == {"lease": "l1"}
        assert cluster.token.encode() not in bytes(empty_database.run("SELECT token FROM clusters")[0][0])  # type: ignore[call-overload]

    asyncio.run(write_and_read())


def test_another_key_reads_nothing(empty_database: Database) -> None:
    async def write_and_read() -> None:
        DataManager(url=url_of(empty_database), encrypt_keys=[KEY]).create_cluster("student", {}, {})
        with pytest.raises(InvalidToken):
            DataManager(url=url_of(empty_database), encrypt_keys=[base64.urlsafe_b64encode(b"o" * 32)])

    asyncio.run(write_and_read())
