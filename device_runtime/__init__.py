"""Keyboard brain for small devices: numpy, SentencePiece and a TFLite interpreter, nothing else."""
