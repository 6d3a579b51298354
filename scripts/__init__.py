"""Command line of keyfed."""
