"""The hub's own database: connections, tables and their migrations. It decides nothing."""
