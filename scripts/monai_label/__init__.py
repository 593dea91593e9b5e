"""The MONAI Label app around the bundle: how it is assembled, what it serves, the checkpoints that it trains."""
