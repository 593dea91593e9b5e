"""What a prediction is worth while training: one file a loss."""
