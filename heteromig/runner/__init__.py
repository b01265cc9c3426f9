"""The imperative shell: the loop, the journal, the run directory, the certificate from files."""
