"""What travels with a registered model, and is loaded there without this project."""
