"""The ASGI app, the live sockets, and the child processes that it starts and watches."""
