"""A run as something to show others: a page, a short form for a pull request, a trace."""
