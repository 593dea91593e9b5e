"""Data sets, splits and slices to train on; nothing here knows a network."""
