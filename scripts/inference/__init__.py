"""From trained weights to a map: checkpoint metadata, the network on a scan, its calibration."""
