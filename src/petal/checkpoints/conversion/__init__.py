"""Copies of whole databases: from LangGraph's tables or Petal's into Petal's, each value checked."""
