//! The network between an instance and the server, which can be cut and can fall silent.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

#[derive(Clone, Copy, Default)]
struct Orders {
    frozen: bool,
    /// Rises with each cut.
    cuts: u64,
}

/// Carries connections to the server's socket until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    accepting: AbortHandle,
}

impl Proxy {
    pub(crate) async fn start(socket: PathBuf) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (orders, given) = watch::channel(Orders::default());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, socket.clone(), given.clone()));
            }
        });
        Ok(Proxy {
            address,
            orders,
            accepting: accepting.abort_handle(),
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Closes every connection in the middle of whatever it carries.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// While it is frozen nothing passes and nothing is lost: both ends wait, as on a half-open
    /// connection; what waits flows on afterwards.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.orders.send_modify(|orders| orders.frozen = frozen);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, socket: PathBuf, mut orders: watch::Receiver<Orders>) {
    let cuts = orders.borrow().cuts;
    let flowing = orders.clone();
    let carried = async {
        thawed(&mut flowing.clone()).await;
        let server = UnixStream::connect(socket).await?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            done = pump(from_client, to_server, flowing.clone()) => done,
            done = pump(from_server, to_client, flowing.clone()) => done,
        }
    };
    // An end that closes closes both; so does a cut.
    tokio::select! {
        _ = carried => {}
        _ = orders.wait_for(|orders| orders.cuts != cuts) => {}
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
    // An error means that the proxy is gone, and the connection may go too.
    let _ = orders.wait_for(|orders| !orders.frozen).await;
}
