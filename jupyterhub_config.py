"""JupyterHub's configuration: everything is set in `hub.yaml` and turned into traitlets by `hub_ext.bootstrap`."""

from hub_ext.bootstrap import configure
from hub_ext.settings import load_settings

configure(get_config(), load_settings())  # JupyterHub provides get_config
