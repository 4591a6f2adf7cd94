"""LangGraph's own savers behind one face: `engine: langgraph`."""
