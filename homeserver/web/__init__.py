"""HTTP: declaring endpoints, routing to them, and the protocol that serves them."""
