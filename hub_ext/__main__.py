"""`python -m hub_ext` is `hub-ext`."""

from hub_ext.cli import main

main()
