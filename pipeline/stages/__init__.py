"""One module a DVC stage: read inputs, call the package that knows how, write outputs."""
