//! tarpc, with bincode behind a length. Server and client have a thread of tokio each; the client has
//! a transport for each connection, and a task for each request outstanding.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};
use tokio::net::{TcpListener, TcpStream};

use super::Work;
use super::load::{Window, count};
use super::server::announce;
use crate::codec::{Trade, trade};

#[tarpc::service]
trait Desk {
    async fn echo(trade: Trade) -> Trade;
}

#[derive(Clone)]
struct Echo;

impl Desk for Echo {
    async fn echo(self, _: context::Context, trade: Trade) -> Trade {
        trade
    }
}

pub fn serve(_connections: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let transport = serde_transport::Transport::from((stream, Bincode::default()));
            let requests = BaseChannel::with_defaults(transport).execute(Echo.serve());
            tokio::spawn(requests.for_each(|request| async {
                tokio::spawn(request);
            }));
        }
    })
}

/// Replies per second.
pub fn measure(address: SocketAddr, work: Work, window: Window) -> io::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let replies = Arc::new(AtomicU64::new(0));
        for connection in 0..work.connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let transport = serde_transport::Transport::from((stream, Bincode::default()));
            let client = DeskClient::new(client::Config::default(), transport).spawn();
            for call in 0..work.depth {
                let (client, replies) = (client.clone(), Arc::clone(&replies));
                let trade = trade((connection * work.depth + call) as u64);
                tokio::spawn(async move {
                    loop {
                        let reply = client.echo(context::current(), trade).await;
                        assert_eq!(reply.expect("a reply"), trade);
                        replies.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        Ok(count(&replies, window).await)
    })
}
