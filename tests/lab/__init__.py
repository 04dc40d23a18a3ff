"""The lab: a small shop of real servers on this machine, laid out as a Kubernetes node lays out its pods.

Each pod has its own network namespace on a common bridge and its processes stand in cgroups of the kubelet's
form; there is no Kubernetes. Faults (`tests.lab.faults`) are switched on and off while the shop runs, and each
states what the right answer is.
"""

from pathlib import Path

# The programs that run in the pods.
APPS = Path(__file__).resolve().parent / "apps"
