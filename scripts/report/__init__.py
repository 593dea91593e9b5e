"""What is measured of a mask, and the report, the preview and the page that show it."""
