"""MLflow: runs, what is told of them, and how the UI shows them."""
