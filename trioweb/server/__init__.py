"""The server: listeners, and a session for each connection."""
