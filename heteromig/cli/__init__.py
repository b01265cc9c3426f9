"""Typer commands, one module a group: the only place that prints results or exits."""
