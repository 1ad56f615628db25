"""From reviews to batches: the subword vocabulary, and length-bucketed, right-padded batches."""
