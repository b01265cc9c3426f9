"""The pure part: phases, events, effects, the table, guards, plan, verdict. No I/O, clock, thread or process."""
