"""Bundles from packet captures: `import_pcap` turns pcap and pcapng files into a `.ktape`."""

from kubetape.capture.pcap.importer import import_pcap

__all__ = ["import_pcap"]
