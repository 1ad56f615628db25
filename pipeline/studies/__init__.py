"""The course's lessons, measured: what padding does, how far a gradient reaches, what an LSTM's gates do."""
