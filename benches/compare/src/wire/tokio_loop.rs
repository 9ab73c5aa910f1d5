//! tokio: one thread, a task per connection, readiness by epoll. A read, the answers to all that
//! came, one write.

use std::net::TcpListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::Input;
use super::server::announce;

pub fn serve(_connections: usize) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        announce(listener.local_addr()?);
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(echo(stream));
        }
    })
}

/// Ends with the connection.
async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut input, mut output) = (Input::new(), Vec::new());
    loop {
        let count = stream.read(input.room()).await?;
        if count == 0 {
            return Ok(());
        }
        input.came(count, &mut output);
        stream.write_all(&output).await?;
        output.clear();
    }
}
