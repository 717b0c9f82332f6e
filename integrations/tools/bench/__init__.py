"""What HERO costs: parameters, FLOPs, time, throughput and memory of a step, beside the plain base and the paper."""
