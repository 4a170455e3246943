from tests.services.desk.conftest import centre, centre_on_each, one_file
from tests.support.databases import database

__all__ = ["centre", "centre_on_each", "database", "one_file"]
