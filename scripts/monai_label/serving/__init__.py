"""What runs in MONAI Label's process only, and needs its packages."""
