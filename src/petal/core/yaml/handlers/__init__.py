"""Each part of a YAML file, and what becomes of it."""
