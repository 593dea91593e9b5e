"""Studies from an archive and results back to it: a DICOM node, and DICOMweb."""
