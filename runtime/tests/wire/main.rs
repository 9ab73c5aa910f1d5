//! Messages on the wire: a node and its clients, versions, lock files, and bytes that are none.

#[expect(dead_code, reason = "of the example, its messages alone are of interest here")]
#[path = "../../examples/ledger.rs"]
mod ledger;
#[path = "../../../net/tests/support/random.rs"]
mod random;
#[path = "../support/wire_types.rs"]
mod wire_types;

mod any_bytes;
mod conversions;
mod lock;
mod node;
mod versions;
