"""Labels that are likely to be wrong, and what people decide about them."""
