"""Agents and single steps from YAML files."""
