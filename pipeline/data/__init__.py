"""Reviews: where they come from, what is expected of them, how they are divided, and new ones taken in."""
