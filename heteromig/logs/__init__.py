"""LoadGen and harness text turned into events; incremental tailing of growing files."""
