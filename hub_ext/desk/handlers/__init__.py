"""The desk's addresses, by page: every module here that has a `router` is part of the desk."""
