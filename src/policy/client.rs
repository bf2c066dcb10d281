//! Who the client is behind trusted proxies, and what the forwarding fields say about it.
