"""The next-word model: tokenizer, CIFG-LSTM, pre-training, checkpoints and TFLite export."""
