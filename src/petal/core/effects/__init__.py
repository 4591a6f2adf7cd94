"""Effects: acts of a step on the world, recorded so that they happen once however often the step runs."""
