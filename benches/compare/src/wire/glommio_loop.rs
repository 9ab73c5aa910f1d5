//! glommio: one executor, a task per connection on its `TcpStream`. A read, the answers to all that
//! came, one write. It looks for work for long before it sleeps.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

use super::frames::Input;
use super::server::{announce, set_busy};

pub fn serve(_connections: usize) -> std::io::Result<()> {
    set_busy(|| None);
    // The whole process is on one core already.
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .spin_before_park(Duration::from_millis(10))
        .make()?;
    executor.run(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        announce(listener.local_addr()?);
        loop {
            let stream = listener.accept().await?;
            stream.set_nodelay(true)?;
            glommio::spawn_local(echo(stream)).detach();
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
