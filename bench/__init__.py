"""What keeping state costs: Petal's savers, LangGraph's, and the floor beneath them all."""
