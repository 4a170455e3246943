from tests.services.desk.conftest import make_centre, one_file

__all__ = ["make_centre", "one_file"]
