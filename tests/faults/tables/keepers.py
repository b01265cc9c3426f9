CELLS = ()
