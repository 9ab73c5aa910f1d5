//! What somebody is told for whom there is no room where connections speak TLS.

use std::io::Read;
use std::time::Duration;

use crate::certificates::{Authority, Folder};
use crate::server::Server;
use coreside_net::client::{Client, ClientError};
use coreside_net::tls::{ClientTls, ServerTls, TlsConfig};
use coreside_net::{Limits, NetConfig};

#[test]
fn one_connection_too_many_is_told_so_in_the_words_of_tls() {
    let (authority, folder) = (Authority::new("first"), Folder::new());
    let (certificate, key) = folder.put_identity("node", &authority.certify("127.0.0.1"));
    let ca = folder.put("ca.crt", &authority.pem());
    let tls = ServerTls::load(TlsConfig::new(certificate, key)).expect("good files");
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let config = NetConfig { limits, ..NetConfig::default() };
    let server = Server::secure(config, Some(tls));
    let _first = server.connect();
    while server.connections() == 0 {
        std::thread::yield_now();
    }
    let (mut second, mut answer) = (server.connect(), Vec::new());
    second.read_to_end(&mut answer).expect("the end of the stream");
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 80], "a fatal alert, and nothing that is no TLS");
    let builder = Client::builder().connect_timeout(Duration::from_secs(20));
    match builder.tls(ClientTls::new(ca)).connect(server.address) {
        Err(ClientError::Tls(error)) => {
            assert!(error.to_string().contains("InternalError"), "{error}");
        }
        // What the client still had to say met a closed socket.
        Err(ClientError::Io(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(server.stop().refused, 2);
}
