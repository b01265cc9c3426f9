"""Campaigns: many runs for one answer. Pure: what is known -> what to run next; others run it."""
