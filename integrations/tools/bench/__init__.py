"""What HERO costs: parameters, FLOPs, time and memory of a step, beside the plain base and the paper."""
