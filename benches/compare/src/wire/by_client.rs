//! Ours, asked by `coreside::Client` in place of the load: what a service has that asks one request
//! at a time from each of many tasks, as those of tonic and tarpc do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use coreside::Client;

use super::Work;
use super::load::{ENTITIES, Rate, Tally, Window};
use super::ours::Desk;
use crate::codec::trade;

pub fn measure(address: SocketAddr, work: Work, window: Window) -> io::Result<Rate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tally = Arc::new(Tally::default());
        for connection in 0..work.connections {
            let client = Client::builder().entity::<Desk>().connect(address);
            let client = client.map_err(io::Error::other)?;
            for call in 0..work.depth {
                let (client, tally) = (client.clone(), Arc::clone(&tally));
                let number = (connection * work.depth + call) as u64;
                let (key, trade) = (number % ENTITIES as u64, trade(number));
                tokio::spawn(async move {
                    let mut is_right = true;
                    while is_right {
                        let reply = client.entity::<Desk>(key).echo(trade).await;
                        is_right = tally.note(reply.is_ok_and(|reply| reply == trade));
                    }
                });
            }
        }
        tally.count(window).await
    })
}
