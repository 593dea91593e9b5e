"""Schedules, ignite handlers (resume, tables, history) and the checks of a run; nothing here reads a scan."""
