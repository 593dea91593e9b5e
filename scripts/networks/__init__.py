"""Segmentation networks and their shared blocks; nothing here reads files or knows about data or training."""
