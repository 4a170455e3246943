"""The desk: what turns decisions into something people can live with. Pages, an API, and the clock."""
