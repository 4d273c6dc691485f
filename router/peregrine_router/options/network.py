"""Options: addresses, connections and bodies."""

from pydantic_settings import BaseSettings

from peregrine_router.options.declaration import NameList, PathPrefix, option


class NetworkOptions(BaseSettings):
    """Addresses, connections and bodies."""

    port: int = option(3000, "PORT", "TCP port; 0 lets the system choose.", metavar="PORT", ge=0, le=65535)
    # Shells and containers set HOSTNAME to the machine's name: reading it would open the server to the network unasked.
    hostname: str = option(
        "127.0.0.1", "PEREGRINE_HOSTNAME", "Address to listen on; 0.0.0.0 is every interface.", metavar="HOST"
    )
    root_path: PathPrefix = option(
        "",
        "ROOT_PATH",
        "Path under which a proxy publishes the server, as in /falcon; the proxy may strip it or leave it on.",
        metavar="PATH",
    )
    cors_allow_origin: NameList = option(
        (),
        "CORS_ALLOW_ORIGIN",
        "Origins whose pages may call the server (CORS). Not set: any.",
        metavar="ORIGIN[,ORIGIN...]",
    )
    keep_alive_timeout: int = option(
        75,
        "KEEP_ALIVE_TIMEOUT",
        "Time after which an idle connection is closed; longer than the pool of a proxy in front keeps it.",
        metavar="SECONDS",
        ge=1,
    )
    slow_client_timeout: float = option(
        60.0, "SLOW_CLIENT_TIMEOUT", "Time until a client that does not read is disconnected.", metavar="SECONDS", gt=0
    )
    max_connections: int = option(8192, "MAX_CONNECTIONS", "Open connections; more are answered 503.", ge=1)
    max_connections_per_address: int | None = option(
        None, "MAX_CONNECTIONS_PER_ADDRESS", "Those from one address, such as a proxy's; more are answered 429.", ge=1
    )
    payload_limit: int = option(
        2_000_000, "PAYLOAD_LIMIT", "Largest request body; larger ones are answered 413.", metavar="BYTES", ge=1
    )
    payload_memory: int = option(
        268_435_456,
        "PAYLOAD_MEMORY",
        "Memory for bodies that are not parsed yet; beyond it, who sends most is answered 429.",
        metavar="BYTES",
        ge=1,
    )
