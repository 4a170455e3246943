from tests.services.desk.conftest import centre_on_each
from tests.support.databases import database

__all__ = ["centre_on_each", "database"]
