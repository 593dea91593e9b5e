"""Data set layouts, splits, slices out of volumes, and the phantom; nothing here knows a network."""
