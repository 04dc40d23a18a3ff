"""MySQL and MariaDB: one row per command, and one per login."""

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.mysql.detect import PORTS, detect
from kubetape.analyze.protocols.mysql.prepared import resolve
from kubetape.analyze.protocols.mysql.stitch import MysqlDecoder

PROTOCOL = Protocol(
    name="mysql",
    detect=detect,
    decoder=MysqlDecoder,
    ports=PORTS,
    resolve=resolve,
)
