"""Tools that agents call, and the record of their calls."""
