"""Segmentation networks and their shared blocks; they know neither files nor training."""
