"""One module a DVC stage: read inputs, call the room that knows how, write outputs."""
