//! What a node refuses for the sake of safety.

use std::net::SocketAddr;

use coreside::{Node, NodeBuilder, NodeError, entity, handlers};

#[entity]
#[derive(Default)]
struct Vault;

#[handlers]
impl Vault {}

fn everywhere() -> SocketAddr {
    ([0, 0, 0, 0], 0).into()
}

type Listens = fn(NodeBuilder, SocketAddr) -> NodeBuilder;

/// Both protocols.
const LISTENS: [Listens; 2] = [NodeBuilder::listen, NodeBuilder::listen_native];

fn builder() -> NodeBuilder {
    Node::builder().entity::<Vault>().shards(1)
}

#[test]
fn plain_text_does_not_leave_the_machine_unless_it_is_allowed_to() {
    for listen in LISTENS {
        let refused = listen(builder(), everywhere()).start();
        let Err(error @ NodeError::Listen(..)) = refused else { panic!("{refused:?}") };
        let text = error.to_string();
        for advice in ["0.0.0.0:0", "127.0.0.1", "--insecure-plaintext"] {
            assert!(text.contains(advice), "{text}");
        }
        // Never bound beyond loopback here: allowed is what would be refused.
        let node = listen(builder(), ([127, 0, 0, 1], 0).into()).start().expect("loopback");
        node.stop();
    }
}
