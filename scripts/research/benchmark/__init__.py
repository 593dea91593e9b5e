"""Speed and memory: the networks and `segment`, beside what others use, in one run."""
