"""Starts whose work could grow with a product of two numbers. Each in two sizes, whose factors differ tenfold."""

import contenders as c
import entries
import lives
from hosts import fresh
from rounds import QUICK, interleaved
from starts import BACKEND, sources

SIZES = (1, 10) if not QUICK else (0.1, 1)
PRODUCT_ROUNDS = 1 if QUICK else 5
PORT = c.FIRST_PORT


def products():
    """Milliseconds, the larger size after the smaller one."""
    kinds = (ranges_and_flows, neighbours, balanced, mapped_ranges, port_ranges)
    jobs = dict(job(size) for job in kinds for size in SIZES)
    return interleaved(jobs, lambda _: PRODUCT_ROUNDS)["ready"]


def ranges_and_flows(size):
    ranges, flows = sources(int(900 * size)), int(5500 * size)
    spread = ranges[::len(ranges) // 50]
    arguments = [f"tcp/{PORT}={BACKEND}:{c.BACKEND_PORT}"]
    environment = {"SRC_RANGES": " ".join(ranges)}
    job = lives.until_ready(arguments, environment,
                            lambda host: entries.forwarded(host, spread, flows, PORT, c.BACKEND_PORT))
    return f"a start with {len(ranges):,} source ranges and {flows:,} flows", job


def neighbours(size):
    """Two instances with the same ports on different addresses."""
    services, addresses = int(500 * size), int(20 * size)
    forwards = c.forwards(c.ports(services), BACKEND)

    def arguments(name, network):
        return [f"--name={name}", "--listen=" + ",".join(f"10.{network}.0.{i + 1}" for i in range(addresses)),
                *forwards]

    def measure(host, _):
        _, process = lives.ready(host, arguments("one", 1), {})
        lives.cpu_when_idle(process)
        found, _ = lives.ready(host, arguments("two", 2), {})
        return found

    name = (f"a start of {services:,} forwards on {addresses} addresses beside an instance with the same ports "
            f"on {addresses} other addresses")
    return name, lambda: fresh(measure)


def balanced(size):
    """render: its output grows with the product."""
    forwards, destinations = int(20 * size), int(30 * size)
    backends = ",".join(f"10.2.{i // 250}.{i % 250 + 1}" for i in range(destinations))
    arguments = [f"tcp/{port}={backends}" for _, port, _ in c.ports(forwards)]
    job = lives.of_commands([c.NODEFWD, "render", *arguments], "")
    return f"`render` of {forwards} forwards to {destinations} destinations each", job


def mapped_ranges(size):
    """Ranges of two ports that go to two other ports."""
    forwards = int(2000 * size)
    ranges = (c.FIRST_PORT + 2 * i for i in range(forwards))
    arguments = [f"tcp/{port}-{port + 1}={BACKEND}:{port + 1}-{port + 2}" for port in ranges]
    return f"a start of {forwards:,} forwards of two ports to two other ports", lives.until_ready(arguments, {})


def port_ranges(size):
    """Ranges in one set: the kernel compares a new one with those that are there."""
    forwards = int(1000 * size)
    arguments = [f"tcp/{port}-{port + 1}={BACKEND}" for port in range(c.FIRST_PORT, c.FIRST_PORT + 3 * forwards, 3)]
    return f"a start of {forwards:,} forwards of two ports", lives.until_ready(arguments, {})
