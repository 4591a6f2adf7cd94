"""From a configuration to an agent."""
