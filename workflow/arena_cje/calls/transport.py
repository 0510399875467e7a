"""What goes over the wire: headers that the configuration names and no others, to the configured server and to no other.

The provider's client would add what it finds in the environment (an organization, a project, any header, even another key), and
follow a redirect to any host. Proxies and certificates are settings of the machine, and are taken from the environment.
"""

from __future__ import annotations

import os
from typing import Any

from arena_cje.errors import UserError

# Variables that the HTTP client reads, in capitals.
PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
KEEPS_REQUEST = (307, 308)  # redirects after which the same request is sent again; after others its body is lost


class RedirectRefused(Exception):
    """The server redirects the request to another address."""

    def __init__(self, status: int, location: str):
        super().__init__(location)
        self.status = status
        self.location = location


def client(sdk_client: Any, http_client: Any, base_url: str, key: str | None, timeout: float) -> Any:
    """A provider's asynchronous client that sends the key alone, without retries, which are the runner's task.

    sdk_client, http_client: classes of the provider's package. key: None sends the word `none`. timeout: seconds. Raises a
    `UserError` where the machine's settings of proxies and certificates cannot be used.
    """
    key = key or "none"

    class ExplicitClient(sdk_client):
        @property
        def default_headers(self) -> dict[str, str]:
            """All headers of a request, without any of the environment."""
            return {
                "Accept": "application/json",
                "Authorization": f"Bearer {key}",
                "Content-Type": "application/json",
                "User-Agent": self.user_agent,
            }

    try:
        http = http_client(timeout=timeout, event_hooks={"response": [_check_redirect]})
    except OSError as error:
        raise _setting_error(error, CERTIFICATES, "files of certificates that exist") from None
    except Exception as error:  # each of the two HTTP clients has its own class for malformed addresses
        raise _setting_error(
            error,
            PROXIES,
            "proxies as http://HOST:PORT or https://HOST:PORT (no other scheme), and names of hosts in NO_PROXY",
        ) from None
    return ExplicitClient(base_url=base_url, api_key=key, timeout=timeout, max_retries=0, http_client=http)


def _setting_error(error: Exception, names: tuple[str, ...], expected: str) -> Exception:
    """The error of a user whose environment variables cannot be used; the error itself where none of them is set."""
    used = sorted(name for name in os.environ if name.upper() in names and os.environ[name])
    if not used:
        return error
    # A proxy's address may have a password in it, so the library's message, which repeats the address, is left out.
    return UserError(
        f"requests cannot be sent with {' and '.join(used)} of the environment ({type(error).__name__}); expected {expected}; "
        "correct or unset these variables and run the same command again"
    )


async def _check_redirect(response: Any) -> None:
    """Refuse a redirect to another server, or one that does not keep the request; raises `RedirectRefused`."""
    if not response.has_redirect_location:
        return
    location = response.headers["location"]
    try:
        target = response.url.join(location)
    except Exception as error:  # each of the two HTTP clients has its own class for malformed addresses
        raise RedirectRefused(response.status_code, location) from error
    if response.status_code not in KEEPS_REQUEST or _origin(response.url) != _origin(target):
        raise RedirectRefused(response.status_code, str(target))


def _origin(url: Any) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
