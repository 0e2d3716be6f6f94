"""Handlers of the IPC operations, by theme. Each class gives its part of the table in `handlers()`."""
