//! A forwarder that looks at nothing: about the least a proxy on Ringway's runtime costs.
//!
//! Every client connection gets an upstream connection of its own, and bytes go both ways as they
//! come: per small request two receives and two sends, as in any proxy, and nothing else. What a
//! gateway costs beyond this is its own work. A pool that reuses few warm upstream connections can
//! save a few per cent of it, in the kernel.

use std::io;
use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

/// Of a buffer, unless another size is asked for: as many as Ringway reads a message head into.
pub const BUFFER_BYTES: usize = 8 * 1024;
const RING_ENTRIES: u32 = 4096;
const BACKLOG: i32 = 4096;

/// Forwards from `listen` to `to` until the process is killed, `buffer_bytes` at a time each way.
pub fn run(listen: SocketAddr, to: SocketAddr, buffer_bytes: usize) -> io::Result<()> {
    let mut ring = io_uring_of_monoio::IoUring::builder();
    ring.setup_cqsize(RING_ENTRIES * 4).setup_single_issuer().setup_defer_taskrun();
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(RING_ENTRIES)
        .build()?;
    runtime.block_on(async move {
        let options = ListenerOpts::new().reuse_port(true).backlog(BACKLOG);
        let listener = TcpListener::bind_with_config(listen, &options)?;
        loop {
            let (client, _) = listener.accept().await?;
            monoio::spawn(async move {
                // A connection that cannot be forwarded is dropped: the load generator counts it.
                let _ = connect(client, to, buffer_bytes).await;
            });
        }
    })
}

async fn connect(client: TcpStream, to: SocketAddr, buffer_bytes: usize) -> io::Result<()> {
    let upstream = TcpStream::connect_addr(to).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (client_reads, client_writes) = client.into_split();
    let (upstream_reads, upstream_writes) = upstream.into_split();
    monoio::spawn(pump(client_reads, upstream_writes, buffer_bytes));
    pump(upstream_reads, client_writes, buffer_bytes).await
}

async fn pump(
    mut from: impl AsyncReadRent,
    mut to: impl AsyncWriteRent,
    buffer_bytes: usize,
) -> io::Result<()> {
    let mut buf = Vec::with_capacity(buffer_bytes);
    loop {
        buf.clear();
        let (read, back) = from.read(buf).await;
        if read? == 0 {
            return to.shutdown().await;
        }
        let (written, back) = to.write_all(back).await;
        written?;
        buf = back;
    }
}
