"""NIfTI files and their headers."""
