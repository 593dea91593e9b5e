"""How a network is applied: by torch or by OpenVINO, in which precision, compiled once."""
