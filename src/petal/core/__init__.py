"""Building and running agents."""
