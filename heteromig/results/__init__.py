"""Published MLPerf results: what a system gave beside busy neighbours, against the same system alone."""
