"""The words every feature shares: amounts, people, decisions, time and errors. Standard library only."""
