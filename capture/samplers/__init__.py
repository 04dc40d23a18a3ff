"""The once-a-second readings of /proc and the cgroup files, as rows of the bundle."""
