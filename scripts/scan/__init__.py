"""Reading, checking and writing one scan; nothing here trains."""
