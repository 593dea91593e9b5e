"""The MONAI Label app: its assembly, the server, and the checkpoints that it trains."""
