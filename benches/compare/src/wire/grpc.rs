//! tonic: gRPC over HTTP/2, prost's messages. Server and client have a thread of tokio each; the
//! client has a channel for each connection, and a task for each request outstanding.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ::tonic::transport::server::TcpIncoming;
use ::tonic::transport::{Endpoint, Server};
use ::tonic::{Request, Response, Status};

use super::Work;
use super::load::{Rate, Tally, Window};
use super::server::announce;
use crate::codec::Trade;

// What tonic-build wrote.
include!(concat!(env!("OUT_DIR"), "/compare.Desk.rs"));

/// The flat message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Note {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    account: u64,
    #[prost(sint64, tag = "3")]
    price: i64,
    #[prost(uint64, tag = "4")]
    quantity: u64,
    #[prost(uint32, tag = "5")]
    flags: u32,
    #[prost(uint32, tag = "6")]
    kind: u32,
    #[prost(fixed64, tag = "7")]
    time_ns: u64,
    #[prost(bytes = "vec", tag = "8")]
    venue: Vec<u8>,
}

impl From<Trade> for Note {
    fn from(trade: Trade) -> Self {
        let Trade { id, account, price, quantity, flags, kind, time_ns, venue } = trade;
        Self { id, account, price, quantity, flags, kind, time_ns, venue: venue.to_vec() }
    }
}

struct Echo;

#[::tonic::async_trait]
impl desk_server::Desk for Echo {
    async fn echo(&self, note: Request<Note>) -> Result<Response<Note>, Status> {
        Ok(Response::new(note.into_inner()))
    }
}

pub fn serve(_connections: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder().add_service(desk_server::DeskServer::new(Echo));
        server.serve_with_incoming(incoming).await.map_err(io::Error::other)
    })
}

pub fn measure(address: SocketAddr, work: Work, window: Window) -> io::Result<Rate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tally = Arc::new(Tally::default());
        for connection in 0..work.connections {
            let endpoint = Endpoint::from_shared(format!("http://{address}"));
            let endpoint = endpoint.map_err(io::Error::other)?.tcp_nodelay(true);
            let channel = endpoint.connect().await.map_err(io::Error::other)?;
            let client = desk_client::DeskClient::new(channel);
            for call in 0..work.depth {
                let (mut client, tally) = (client.clone(), Arc::clone(&tally));
                let note = Note::from(crate::codec::trade((connection * work.depth + call) as u64));
                tokio::spawn(async move {
                    let mut is_right = true;
                    while is_right {
                        let reply = client.echo(Request::new(note.clone())).await;
                        is_right = tally.note(reply.is_ok_and(|reply| reply.into_inner() == note));
                    }
                });
            }
        }
        tally.count(window).await
    })
}
