"""Synthetic typing text: from public sources to what a phone would have been typed on. Reads nothing private."""
