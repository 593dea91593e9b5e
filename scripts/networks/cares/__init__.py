"""CARes-UNet and its content-aware up-sampling."""
