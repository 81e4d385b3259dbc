//! Holdline: an interruptible WebSocket reverse proxy.
