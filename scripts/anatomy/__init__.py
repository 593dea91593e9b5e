"""Find lungs, body, field of view and orientation in an array with spacing; nothing here reads a file."""
