"""Handlers that MONAI lacks: schedules, checkpoints, resuming, tables, the checks of a run."""
