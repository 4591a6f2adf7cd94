"""Frozen data that says what to build."""
