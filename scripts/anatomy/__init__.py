"""Find lungs, body, field of view and orientation in an array with spacing; read no file."""
