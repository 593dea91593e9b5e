"""Synthetic chest scans with lesions."""
