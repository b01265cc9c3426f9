"""Campaigns: many ordinary runs, one directory, one answer. What to run next is decided in `campaign`."""
