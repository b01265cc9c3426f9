"""People recognise the tree by this file; whoever starts it gets nothing."""
