"""Servers and clients of several TLS libraries, for test_tls.py. Each server answers with its client's port."""
