"""Who may talk to whom: tokens, TLS, and what is wrong when a connection is refused (G10)."""
