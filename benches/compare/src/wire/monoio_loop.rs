//! monoio on io_uring: one thread, a task per connection. A read, the answers to all that came, one
//! write; the buffers go to the kernel and come back.

use std::net::TcpListener;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

use super::frames::{INPUT_BYTES, answer};
use super::server::announce;

pub fn serve(_connections: usize) -> std::io::Result<()> {
    let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build();
    runtime?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        announce(listener.local_addr()?);
        let listener = monoio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(echo(stream));
        }
    })
}

/// Ends with the connection.
async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut input, mut output) = (Vec::with_capacity(INPUT_BYTES), Vec::new());
    // Of a request whose end has not come.
    let mut part = Vec::new();
    loop {
        let came;
        (came, input) = stream.read(input).await;
        if came? == 0 {
            return Ok(());
        }
        if part.is_empty() {
            let taken = answer(&input, &mut output);
            part.extend_from_slice(&input[taken..]);
        } else {
            part.extend_from_slice(&input);
            let taken = answer(&part, &mut output);
            part.drain(..taken);
        }
        input.clear();
        if !output.is_empty() {
            let sent;
            (sent, output) = stream.write_all(output).await;
            sent?;
            output.clear();
        }
    }
}
