"""How it is learned: optimizer, schedules, train step, loop, checkpoints and metric writers."""
