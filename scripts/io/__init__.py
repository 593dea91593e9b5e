"""One scan in a file: reading, checking and writing it."""
