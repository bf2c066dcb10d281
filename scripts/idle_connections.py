"""Memory per idle keep-alive connection, for the measuring scripts."""

import resource
import socket
import ssl
import sys
import time

import peers

REQUEST = b"GET / HTTP/1.1\r\nHost: idle.test\r\n\r\n"
BODY_BYTES = 1024
# Requests in flight at once while the connections are opened.
WAVE = 64
# Until connections are parked: the gateway's timeouts.park, 2 s by default, and a margin.
WAIT_S = 8


def answered(connection):
    """Reads one response; ends the script when it is not a whole 200."""
    text = b""
    while True:
        part = connection.recv(65536)
        text += part
        head, end, body = text.partition(b"\r\n\r\n")
        if not part:
            sys.exit(f"connection ended early: {text[:200]}")
        if end and len(body) >= BODY_BYTES:
            if not head.startswith(b"HTTP/1.1 200"):
                sys.exit(f"unexpected answer: {text[:200]}")
            return


def connect(port, authority):
    """One connection, with TLS where there is an authority to believe."""
    connection = socket.create_connection(("127.0.0.1", port), 10)
    if not authority:
        return connection
    context = connect.contexts.get(authority.ca)
    if not context:
        context = ssl.create_default_context(cafile=authority.ca)
        context.set_alpn_protocols(["http/1.1"])
        connect.contexts[authority.ca] = context
    return context.wrap_socket(connection, server_hostname=authority.name)


connect.contexts = {}


def open_connections(port, count, authority=None):
    """Opens `count` connections and has one request answered on each."""
    connections = []
    for first in range(0, count, WAVE):
        wave = [connect(port, authority) for _ in range(first, min(first + WAVE, count))]
        for connection in wave:
            connection.sendall(REQUEST)
        for connection in wave:
            answered(connection)
        connections += wave
    return connections


def allow(count):
    """Raises the limit of descriptors for `count` connections; ends the script where it cannot."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = count + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"needs {wanted} descriptors, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure(proxy, count, wait_s=WAIT_S, authority=None):
    """Warms the proxy up with connections that come and go, notes its resident memory, opens
    `count` connections, sends one request on each, waits until they are parked, and divides the
    growth. The origin answers with BODY_BYTES."""
    for _ in range(5):
        for connection in open_connections(proxy.port, 2 * WAVE, authority):
            connection.close()
    time.sleep(wait_s)
    before = peers.rss_kib(proxy.worker)
    connections = open_connections(proxy.port, count, authority)
    active = peers.rss_kib(proxy.worker)
    time.sleep(wait_s)
    parked = peers.rss_kib(proxy.worker)
    # A parked connection must still work.
    for connection in connections[::100]:
        connection.sendall(REQUEST)
        answered(connection)
    for connection in connections:
        connection.close()
    return {"connections": count, "before_kib": before, "active_kib": active, "idle_kib": parked,
            "kib_per_connection": (parked - before) / count}
