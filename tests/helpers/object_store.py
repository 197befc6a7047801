"""An S3-compatible server for tests: OpenStack Swift with its s3api, in one process on loopback.

It needs Debian's python3-swift, and a folder whose file system has extended user attributes (ext4, xfs, tmpfs since Linux 6.6).
Imported, this module starts and stops the server; run with the system's Python, it is the server.
"""

# mypy: disable-error-code="import-not-found"

import base64
import hashlib
import io
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

# Swift is installed for the system's Python, while the tests run in a virtual environment.
SYSTEM_PYTHON = "/usr/bin/python3"
LOOPBACK = "127.0.0.1"
# tempauth's users are "account:user", and s3api takes that for the access key.
ACCESS_KEY = "tests:tests"
SECRET_KEY = "not-a-secret"

# All paths are relative to the server's working directory, which is its folder.
# The waits are long, because no daemon runs that would repeat an update of a listing that timed out on a busy machine.
SETTINGS = """\
[DEFAULT]
swift_dir = .
devices = devices
mount_check = false
fallocate_reserve = 0
log_level = WARNING
conn_timeout = 60
node_timeout = 60
container_update_timeout = 60
"""
# The proxy adds the filters that it cannot do without, such as copy, itself.
PROXY = f"""\
[pipeline:main]
pipeline = s3api tempauth slo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
allow_no_owner = true

[filter:tempauth]
use = egg:swift#tempauth
user_{ACCESS_KEY.replace(":", "_")} = {SECRET_KEY} .admin

[filter:slo]
use = egg:swift#slo
"""

Start = Callable[..., object]
App = Callable[[dict[str, Any], Start], Iterable[bytes]]


@dataclass(frozen=True)
class Store:
    """Where the server is, and the key pair that it accepts."""

    endpoint: str
    access_key: str
    secret_key: str


@contextmanager
def object_store(folder: Path) -> Iterator[Store]:
    """A server that keeps its buckets, settings and log (swift.log) in a folder; a later one on the same folder has the same buckets."""
    folder.mkdir(parents=True, exist_ok=True)
    command, log_path = [SYSTEM_PYTHON, "-I", str(Path(__file__).resolve())], folder / "swift.log"
    with (
        log_path.open("ab") as log,
        subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as server,
    ):
        try:
            assert server.stdout is not None
            port = server.stdout.readline().decode().strip()
            if not port:
                raise RuntimeError(f"Swift did not start:\n{log_path.read_text()}")
            yield Store(f"http://{LOOPBACK}:{port}", ACCESS_KEY, SECRET_KEY)
        finally:
            server.terminate()


class NoCache:
    """Stands for memcached, which tempauth insists on but uses for Swift's own tokens only; every look-up finds nothing."""

    def get(self, *_: object, **__: object) -> None: ...

    set = delete = get


def for_clients_of_today(proxy: App) -> App:
    """The proxy with a cache, and with what this Swift and eventlet lack for the present boto3 and aiohttp."""
    cache = NoCache()

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        environ["swift.cache"] = cache
        method = environ["REQUEST_METHOD"]
        if method == "POST" and "delete" in parse_qs(environ["QUERY_STRING"], keep_blank_values=True) and "HTTP_CONTENT_MD5" not in environ:
            # s3api refuses DeleteObjects without an MD5, in whose place boto3 sends a CRC32. The signature covers the body's SHA256.
            body = environ["wsgi.input"].read()
            environ["wsgi.input"] = io.BytesIO(body)
            environ["HTTP_CONTENT_MD5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
        response = proxy(environ, start_response)
        # eventlet ends an answer without a length with an empty chunk, which aiohttp takes for the next answer after HEAD. A list has one.
        return list(response) if method == "HEAD" else response

    return app


def serve() -> None:
    """Serves from the working directory, after printing the port, until stdin is closed, as it is when the tests' process ends."""
    import eventlet
    import eventlet.wsgi
    from eventlet.hubs import trampoline, use_hub
    from swift.common import storage_policy, utils, wsgi
    from swift.common.ring import RingData

    utils.eventlet_monkey_patch()
    use_hub(utils.get_hub())
    # With this attribute every logger writes to stderr too.
    utils.get_logger.console_handler4logger = {}
    Path("swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    utils.set_swift_dir(".")
    storage_policy.reload_storage_policies()
    Path("devices/disk").mkdir(parents=True, exist_ok=True)

    sockets = {kind: eventlet.listen((LOOPBACK, 0)) for kind in ("account", "container", "object", "proxy")}
    ports = {kind: listener.getsockname()[1] for kind, listener in sockets.items()}
    for kind, listener in sockets.items():
        if kind != "proxy":
            # One replica of one partition on one device.
            ring_device = {"ip": LOOPBACK, "port": ports[kind], "replication_ip": LOOPBACK, "replication_port": ports[kind]}
            RingData([array("H", [0])], [{"id": 0, "zone": 1, "device": "disk", "weight": 1, **ring_device}], 32).save(f"{kind}.ring.gz")
        config = Path(f"{kind}-server.conf")
        config.write_text(SETTINGS + (PROXY if kind == "proxy" else f"[app:main]\nuse = egg:swift#{kind}\n"))
        app = wsgi.loadapp(str(config.resolve()))
        if kind == "proxy":
            app = for_clients_of_today(app)
        options = {"log": utils.NullLogger(), "protocol": wsgi.SwiftHttpProtocol, "capitalize_response_headers": False}
        eventlet.spawn(eventlet.wsgi.server, listener, app, **options)
    print(ports["proxy"], flush=True)
    trampoline(sys.stdin, read=True)


if __name__ == "__main__":
    serve()
