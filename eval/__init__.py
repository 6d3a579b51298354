"""Next-word accuracy through the TFLite file, how sure it is, and the report that shows it."""
