"""What MONAI has no handler for: schedules, checkpoints, resuming, tables, the checks of a run."""
