"""What Kubernetes and the container runtime know about this node's processes, as rows of the bundle."""
