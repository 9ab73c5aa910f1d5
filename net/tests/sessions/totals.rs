//! What all connections of a shard may hold together: output that nobody reads, messages that
//! nobody handles.

use crate::client::Client;
use coreside_net::resp::Limits;
use coreside_net::sessions::SessionId;

/// A reply to `GET big`.
const BIG_BYTES: usize = 10_010;

/// A shard of so many connections, of which the last are not the client's own.
fn connections(limits: Limits, others: usize) -> (Client, Vec<SessionId>) {
    let mut client = Client::new(limits);
    let others = (0..others).map(|_| client.sessions.open(None).expect("room")).collect();
    (client, others)
}

fn receive(client: &mut Client, id: SessionId, bytes: &[u8]) {
    client.sessions.receive(id, bytes, &mut client.fake);
}

/// What a transport does whose sockets take nothing more: begins to send, and waits.
fn flush_into_full_sockets(client: &mut Client) {
    while let Some(id) = client.sessions.next_dirty() {
        if client.sessions.is_finished(id) {
            client.sessions.close(id);
        } else {
            client.sessions.begin_send(id);
        }
    }
}

/// Has the socket of `id` take all there is.
fn read_all(client: &mut Client, id: SessionId) -> usize {
    let mut read = 0;
    loop {
        // A send that is under way goes on, or else the next begins.
        let rest = client.sessions.end_send(id, 0).map(<[u8]>::len);
        let begun = || client.sessions.begin_send(id).map(<[u8]>::len);
        let Some(len) = rest.or_else(begun) else { break };
        client.sessions.end_send(id, len);
        read += len;
    }
    flush_into_full_sockets(client);
    read
}

#[test]
fn output_of_all_connections_is_bounded_and_the_slowest_reader_pays() {
    let limits = Limits { output_bytes_total_max: 8 * BIG_BYTES, ..Limits::default() };
    let (mut client, others) = connections(limits, 3);
    for (id, replies) in others.iter().zip([1, 4, 5]) {
        receive(&mut client, *id, "GET big\r\n".repeat(replies).as_bytes());
    }
    for _ in 0..8 {
        client.fake.answer(0, &mut client.sessions);
        flush_into_full_sockets(&mut client);
    }
    assert_eq!(client.sessions.output_bytes(), 8 * BIG_BYTES);
    read_all(&mut client, others[0]);
    assert_eq!(client.sessions.output_bytes(), 7 * BIG_BYTES);
    let asked_before = std::mem::take(&mut client.fake.waiting);
    // It reads what it asks for, and is let be.
    for _ in 0..10 {
        receive(&mut client, others[0], b"GET big\r\n");
        client.fake.answer_all(&mut client.sessions);
        flush_into_full_sockets(&mut client);
        read_all(&mut client, others[0]);
    }
    assert_eq!(client.sessions.open_count(), 4);
    client.fake.waiting = asked_before;
    client.fake.answer_all(&mut client.sessions);
    flush_into_full_sockets(&mut client);
    assert_eq!(client.sessions.open_count(), 4, "9 replies are too many, but they are new");
    client.sessions.tick(60_000_000);
    receive(&mut client, others[0], b"PING\r\n");
    flush_into_full_sockets(&mut client);
    assert_eq!(client.sessions.open_count(), 3, "nobody reads them");
    assert!(client.sessions.is_finished(others[2]), "it left five unread");
    read_all(&mut client, others[0]);
    assert_eq!(client.sessions.output_bytes(), 4 * BIG_BYTES);
    assert_eq!(client.sessions.stats().limit_closes, 1);
    for id in [others[0], others[1], client.id] {
        client.sessions.close(id);
    }
    assert_eq!(client.sessions.output_bytes(), 0);
}

#[test]
fn replies_that_wait_for_an_earlier_one_count_as_output() {
    let limits = Limits { output_bytes_total_max: 8 * BIG_BYTES, ..Limits::default() };
    let (mut client, others) = connections(limits, 1);
    // Up to 16 KiB of them are not counted.
    receive(&mut client, others[0], "GET big\r\n".repeat(20).as_bytes());
    while client.fake.waiting.len() > 1 {
        client.fake.answer(1, &mut client.sessions);
        flush_into_full_sockets(&mut client);
    }
    let is_over = (client.sessions.open_count(), client.sessions.output_bytes()) == (1, 0);
    assert!(is_over, "they are more than twice too many");
    client.fake.answer_all(&mut client.sessions);
    assert_eq!(client.sessions.owed_count(), 0, "replies that were aside are owed no more");
}

#[test]
fn connections_pause_at_their_share_while_outputs_are_many() {
    // Each may have 30,000 unsent; all of them together half of 80,000, so that each has 10,000.
    let limits = Limits {
        output_bytes_pause: 30_000,
        output_bytes_total_max: 8 * BIG_BYTES,
        query_bytes_pause: 100,
        ..Limits::default()
    };
    let (mut client, others) = connections(limits, 3);
    let pings = "PING\r\n".repeat(1_000);
    receive(&mut client, others[0], pings.as_bytes());
    assert!(client.sessions.wants_input(others[0]), "7,000 are no reason to pause");
    flush_into_full_sockets(&mut client);
    for id in [others[1], others[2]] {
        receive(&mut client, id, "GET big\r\n".repeat(2).as_bytes());
        client.fake.answer_all(&mut client.sessions);
        flush_into_full_sockets(&mut client);
    }
    receive(&mut client, others[0], pings.as_bytes());
    assert!(!client.sessions.wants_input(others[0]), "10,000 are, now");
    assert!(client.sessions.wants_input(client.id), "who holds nothing may ask");
    client.receive(b"PING\r\n");
    assert_eq!(client.sessions.begin_send(client.id), Some(&b"+PONG\r\n"[..]));
    // It goes on as soon as it has less than its share, whatever the others do.
    let (mut read, mut passes) = (0, 0);
    while read < 14_000 && passes < 10 {
        read += read_all(&mut client, others[0]);
        client.sessions.resume(&mut client.fake);
        passes += 1;
    }
    assert_eq!(read, 14_000, "nothing is lost");
    assert!(client.sessions.output_bytes() >= 4 * BIG_BYTES, "the others have read nothing");
}

#[test]
fn commands_of_too_many_bytes_pause_a_connection_until_they_are_answered() {
    let limits =
        Limits { message_bytes_pause: 4_000, query_bytes_pause: 2_000, ..Limits::default() };
    let mut client = Client::new(limits);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$960\r\n{}\r\n", "v".repeat(960));
    client.receive(set.repeat(8).as_bytes());
    assert_eq!(client.fake.seen.len(), 5, "one by one, until they are too many");
    assert!(!client.sessions.wants_input(client.id));
    client.fake.answer(0, &mut client.sessions);
    client.fake.answer(0, &mut client.sessions);
    client.sessions.resume(&mut client.fake);
    assert_eq!(client.fake.seen.len(), 7);
    client.settle(|waiting| waiting - 1);
    assert_eq!(client.output, "+OK\r\n".repeat(8).as_bytes());
    assert_eq!(client.sessions.message_bytes(), 0);
}

#[test]
fn connections_have_their_share_of_messages_while_these_are_many() {
    let limits = Limits { message_bytes_total_max: 16_000, ..Limits::default() };
    let (mut client, others) = connections(limits, 3);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$960\r\n{}\r\n", "v".repeat(960));
    receive(&mut client, others[0], set.repeat(20).as_bytes());
    assert_eq!(client.fake.seen.len(), 9, "past half of all");
    receive(&mut client, others[1], set.repeat(20).as_bytes());
    assert_eq!(client.fake.seen.len(), 9 + 3, "a quarter of that half");
    // Messages of a connection that is gone are there all the same.
    client.sessions.close(others[0]);
    let again = client.sessions.open(None).expect("room");
    receive(&mut client, again, set.repeat(20).as_bytes());
    assert_eq!(client.fake.seen.len(), 9 + 3 + 3);
    assert!(client.sessions.message_bytes() > 15 * 960);
    client.fake.answer_all(&mut client.sessions);
    assert_eq!(client.sessions.message_bytes(), 0);
    while client.sessions.resume(&mut client.fake) > 0 {
        client.fake.answer_all(&mut client.sessions);
    }
    assert_eq!(client.fake.seen.len(), 9 + 20 + 20, "all others were asked in the end");
    assert_eq!(client.sessions.message_bytes(), 0);
}

#[test]
fn each_key_of_a_command_counts_until_its_answer() {
    let mut client = Client::new(Limits::default());
    let value = "v".repeat(100);
    client.receive(format!("MSET a {value} b {value}\r\n").as_bytes());
    let both = client.sessions.message_bytes();
    assert!((2 * 100..2 * 128).contains(&both), "{both} bytes");
    client.fake.answer(1, &mut client.sessions);
    assert_eq!(client.sessions.message_bytes(), both / 2);
    client.receive(b"DBSIZE\r\n");
    assert!(client.sessions.message_bytes() > both / 2, "a sweep, too");
    client.settle(|_| 0);
    assert_eq!(client.output, b"+OK\r\n:77\r\n");
    assert_eq!(client.sessions.message_bytes(), 0);
}
