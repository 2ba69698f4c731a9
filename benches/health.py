"""What it takes to try destinations (NODEFWD_HEALTH), without any other work to do."""

import socket
import time

import contenders as c
import lives
from figures import summary
from hosts import fresh
from rounds import QUICK

DESTINATIONS = 1000
INTERVAL = 5  # seconds
INTERVALS = 1 if QUICK else 4


def share():
    """Percent of a core, for each interval. All destinations are this host's own, so both ends are counted."""
    destinations = ",".join(f"10.92.{i // 250}.{i % 250 + 1}" for i in range(DESTINATIONS))
    forward = f"tcp/{c.FIRST_PORT}={destinations}:{c.BACKEND_PORT}".replace(",", f":{c.BACKEND_PORT},")

    def measure(host, _):
        host.run("ip route add local 10.92.0.0/16 dev lo")
        with host.inside():
            server = socket.create_server(("", c.BACKEND_PORT))
        with server:
            _, process = lives.ready(host, [f"--health={INTERVAL}", forward], {})
            time.sleep(INTERVAL)
            return [interval(process) for _ in range(INTERVALS)]

    return {"destinations": DESTINATIONS, "seconds": INTERVAL, "share": summary(fresh(measure))}


def interval(process):
    before = lives.cpu_until_now(process)
    time.sleep(INTERVAL)
    return (lives.cpu_until_now(process) - before) / INTERVAL * 100
