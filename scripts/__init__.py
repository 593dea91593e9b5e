"""The code behind the bundle's configs: networks, losses, metrics, transforms, data, training, scans."""
