"""The scheduled job: take in, decide, train, record, tidy up."""
