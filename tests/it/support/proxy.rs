//! A proxy between an engine and its server that can fail in the ways in which a network does.
//!
//! It needs nothing but tokio: give it the server's address, connect to [`Proxy::address`], and tell
//! it what to do with what passes. It ends when it is dropped, and all of its connections with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Where a server is.
#[derive(Clone, Debug)]
pub(crate) enum Upstream {
    /// Its unix socket.
    Socket(PathBuf),
    /// Its port.
    #[allow(dead_code, reason = "servers of tests have no port")]
    Port(SocketAddr),
}

/// What a proxy does with what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything flows.
    Pass,
    /// Nothing is read from either side and nothing is lost: both ends wait, as on a half-open
    /// connection. What waits flows on when it passes again. New connections are held too.
    Freeze,
    /// New connections are closed at once; those that are there flow on.
    Refuse,
}

#[derive(Clone, Copy)]
struct Orders {
    mode: Mode,
    /// Rises with each cut.
    cuts: u64,
}

/// A running proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    open: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Listens on a port of this machine for connections to `upstream`.
    pub(crate) async fn start(upstream: Upstream) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (orders, given) = watch::channel(Orders {
            mode: Mode::Pass,
            cuts: 0,
        });
        let open = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(accept(listener, upstream, given, open.clone()));
        Ok(Proxy {
            address,
            orders,
            open,
            accepting: accepting.abort_handle(),
        })
    }

    /// Where to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// What to do from now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.orders.send_modify(|orders| orders.mode = mode);
    }

    /// Closes every connection that is open now, in the middle of whatever it carries.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: Upstream,
    orders: watch::Receiver<Orders>,
    open: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        if orders.borrow().mode == Mode::Refuse {
            continue;
        }
        tokio::spawn(carry(
            client,
            upstream.clone(),
            orders.clone(),
            open.clone(),
        ));
    }
}

/// Carries one connection until an end closes it, or it is cut.
async fn carry(
    client: TcpStream,
    upstream: Upstream,
    mut orders: watch::Receiver<Orders>,
    open: Arc<AtomicUsize>,
) {
    let _counted = OpenConnection::new(open);
    let cuts = orders.borrow().cuts;
    let flowing = orders.clone();
    let carried = async {
        match upstream {
            Upstream::Socket(path) => flow(client, UnixStream::connect(path).await?, flowing).await,
            Upstream::Port(address) => {
                flow(client, TcpStream::connect(address).await?, flowing).await
            }
        }
    };
    // An error of either end closes both, as any proxy does; so does the end of the proxy.
    tokio::select! {
        _ = carried => {}
        _ = orders.wait_for(|orders| orders.cuts != cuts) => {}
    }
}

async fn flow(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    orders: watch::Receiver<Orders>,
) -> io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    tokio::select! {
        done = pump(from_client, to_server, orders.clone()) => done,
        done = pump(from_server, to_client, orders) => done,
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut orders: watch::Receiver<Orders>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        thawed(&mut orders).await;
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        // It may have been frozen while nothing came.
        thawed(&mut orders).await;
        to.write_all(&buffer[..read]).await?;
    }
}

async fn thawed(orders: &mut watch::Receiver<Orders>) {
    // An error means that the proxy is gone, which ends the connection elsewhere.
    let _ = orders.wait_for(|orders| orders.mode != Mode::Freeze).await;
}

struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnection {
    fn new(open: Arc<AtomicUsize>) -> OpenConnection {
        open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(open)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
