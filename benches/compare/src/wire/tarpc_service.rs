//! tarpc, with bincode behind a length. Server and client have a thread of tokio each; the client
//! has a transport for each connection, and a task for each request outstanding.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};
use tokio::net::{TcpListener, TcpStream};

use super::Work;
use super::load::{Rate, Tally, Window};
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

pub fn measure(address: SocketAddr, work: Work, window: Window) -> io::Result<Rate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tally = Arc::new(Tally::default());
        for connection in 0..work.connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let transport = serde_transport::Transport::from((stream, Bincode::default()));
            let client = DeskClient::new(client::Config::default(), transport).spawn();
            for call in 0..work.depth {
                let (client, tally) = (client.clone(), Arc::clone(&tally));
                let trade = trade((connection * work.depth + call) as u64);
                tokio::spawn(async move {
                    let mut is_right = true;
                    while is_right {
                        let reply = client.echo(context::current(), trade).await;
                        is_right = tally.note(reply.is_ok_and(|reply| reply == trade));
                    }
                });
            }
        }
        tally.count(window).await
    })
}
