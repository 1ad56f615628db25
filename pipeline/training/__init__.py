"""Recurrent networks, and how they are fitted."""
