"""State types, and how to read them."""
