"""The code behind the bundle's configs: networks, losses, metrics, transforms, data, training, scans."""

from .errors import end_tracebacks_with_user_errors, in_bundle_runner

if in_bundle_runner():  # its process only: whoever imports the package elsewhere keeps their own hook
    end_tracebacks_with_user_errors()
