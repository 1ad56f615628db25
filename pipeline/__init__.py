"""IMDB review sentiment: download, check, tokenize, batch, train, compare and register, by machine."""
