"""The 3-D U-Net with feature variation and progressive atrous spatial pyramid pooling."""
