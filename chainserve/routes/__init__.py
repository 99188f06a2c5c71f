"""The routes of a chain and of the server."""
