from tests.services.desk.conftest import centre, centre_on_each, make_centre, one_file
from tests.support.databases import database

__all__ = ["centre", "centre_on_each", "database", "make_centre", "one_file"]
