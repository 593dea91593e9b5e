"""Lungs, body, field of view and orientation, from an array with spacing; nothing here reads a file."""
