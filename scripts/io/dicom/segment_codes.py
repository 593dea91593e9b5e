"""How a DICOM SEG names what is outlined: codes as (value, scheme, meaning).

PS3.16: category from CID 7150, type from CID 7159 (lesion segmentation types), region from CID 4. A
disease such as pneumonia is no type of segment there; what is outlined is the altered tissue.
"""

CATEGORY = ("49755003", "SCT", "Morphologically Altered Structure")
TYPE = ("409774005", "SCT", "Inflammation")
REGION = ("39607008", "SCT", "Lung")
COLOUR = (255, 159, 28)  # RGB, the preview's
