"""MLflow: runs, their descriptions, and how the UI shows them."""
