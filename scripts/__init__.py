"""The code behind the bundle's configs: networks, losses, metrics, transforms, data, training, scans."""

from scripts.errors import end_tracebacks_with_user_errors

end_tracebacks_with_user_errors()
