"""What people see: the live table, plain lines, the closing summary."""
