# make demo    start a small shop with three faults, record it, explain it
# make test    every check: style, types, layout, unit and live tests
# make fuzz    the five largest decoders against any bytes, guided by coverage, ten minutes each
# make diagnose   every fault of the lab, recorded and analyzed blind
# All set up everything they need on Debian 12 (as root, or through sudo).
.PHONY: demo test test-kernel diagnose bench fuzz image setup lock clean-lab

PYTHON := .venv/bin/python

demo:
	@tools/setup.sh demo
	@$(PYTHON) -m tests.lab demo -o out

test:
	@tools/setup.sh test
	@tools/check.sh

# Each fault of the lab by itself, recorded and analyzed blind: which finding comes first (about 50 minutes).
diagnose:
	@tools/setup.sh test
	@$(PYTHON) -m tests.lab diagnose

# The live tests of the probes on Debian's own kernel, in an emulated machine (no KVM needed; half an hour).
test-kernel:
	@tools/setup.sh kernel
	@tools/test_kernel.sh

bench:
	@tools/setup.sh test
	@$(PYTHON) -m tools.bench_recording
	@$(PYTHON) -m tools.bench_analysis

# The recorder's image as an OCI archive (out/), from Debian packages alone; needs root and debootstrap.
image:
	@tools/setup.sh test
	@$(PYTHON) -m tools.image

fuzz:
	@tools/setup.sh test
	@for name in mysql tls http2 postgresql cassandra; do \
	  $(PYTHON) -m tools.fuzz $$name --seconds 600 || exit 1; done

setup:
	@tools/setup.sh test

lock:
	@tools/lock.sh

clean-lab:
	@$(PYTHON) -m tests.lab clean
