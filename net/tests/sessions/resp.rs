//! What sessions promise: parsing, order, gathering, pausing, limits.

use crate::client::{Client, talk};
use crate::random::Random;
use crate::reference;
use crate::replies;
use coreside_net::resp::{Limits, Sessions};
use coreside_shard::Outside;

/// A pipeline with every shape of command.
const MIXED: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n\
    *3\r\n$3\r\nset\r\n$2\r\nkk\r\n$12\r\nbinary\r\n\0\xff\r\n\r\n\
    PING\r\n  set \"a b\" 'c\\'d'\n\r\n*0\r\n*-1\r\n\
    *4\r\n$4\r\nMGET\r\n$1\r\nx\r\n$3\r\nnil\r\n$0\r\n\r\n\
    *5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n\
    *2\r\n$3\r\nDEL\r\n$10\r\n0123456789\r\n*1\r\n$6\r\nDBSIZE\r\nGET failed\r\n\
    *3\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\noops\r\nHELLO 3\r\nKV.SHAPES x\r\n\
    GET nil\r\nget full\r\nGET\r\nFOO \"bar\\x00\" \xc3\xa9\r\nECHO \"\\n\"\r\n\
    RESET\r\nGET nil\r\nQUIT\r\nGET late\r\n";

/// Requests seen, output, and whether the session is finished, for one way to cut the bytes.
fn outcome(input: &[u8], cuts: &[usize]) -> (Vec<Vec<Vec<u8>>>, Vec<u8>, bool) {
    let mut client = Client::new(Limits::default());
    let mut start = 0;
    for &cut in cuts.iter().chain([&input.len()]) {
        client.receive(&input[start..cut]);
        client.settle(|_| 0);
        start = cut;
    }
    let finished = client.is_finished();
    (client.fake.seen, client.output, finished)
}

#[test]
fn bytes_mean_the_same_at_every_cut() {
    let whole = outcome(MIXED, &[]);
    assert!(whole.2, "QUIT finishes");
    assert_eq!(whole.0.len(), 14, "requests that reach the shard");
    assert_eq!(replies::count(&whole.1), Ok(20));
    for cut in 0..MIXED.len() {
        assert_eq!(outcome(MIXED, &[cut]), whole, "cut at {cut}");
    }
    let every: Vec<_> = (0..MIXED.len()).collect();
    assert_eq!(outcome(MIXED, &every), whole, "byte by byte");
}

#[test]
fn random_pipelines_match_a_parser_of_whole_buffers() {
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let input = reference::pipeline(&mut random);
        let (expected, error) = reference::parse(&input);
        let mut client = Client::new(Limits::default());
        let mut rest = &input[..];
        while !rest.is_empty() {
            let len = 1 + random.below(rest.len().min(60));
            client.receive(&rest[..len]);
            rest = &rest[len..];
            if random.below(3) == 0 {
                client.settle(|waiting| random.below(waiting));
            }
        }
        client.settle(|waiting| random.below(waiting));
        let asked = expected.iter().filter(|words| words[0] != b"ECHO");
        assert!(client.fake.seen.iter().eq(asked), "requests, seed {seed}");
        let mut replies = Vec::new();
        for words in &expected {
            let value =
                if words[0] == b"ECHO" { words[1].clone() } else { reference::value(words) };
            replies.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
            replies.extend_from_slice(&value);
            replies.extend_from_slice(b"\r\n");
        }
        if let Some(text) = error {
            replies.extend_from_slice(text.as_bytes());
        }
        assert_eq!(client.output, replies, "replies, seed {seed}");
        assert_eq!(client.is_finished(), error.is_some(), "seed {seed}");
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_reads_why_in_redis_words() {
    let long = "1".repeat(70_000);
    let cases = [
        ("*x\r\n".to_owned(), "invalid multibulk length"),
        ("*\r\n".to_owned(), "invalid multibulk length"),
        ("*01\r\n".to_owned(), "invalid multibulk length"),
        ("*+1\r\n".to_owned(), "invalid multibulk length"),
        ("* 1\r\n".to_owned(), "invalid multibulk length"),
        ("*1048577\r\n".to_owned(), "invalid multibulk length"),
        ("*99999999999999999999\r\n".to_owned(), "invalid multibulk length"),
        (format!("*{long}"), "too big mbulk count string"),
        ("*1\r\nx\r\n".to_owned(), "expected '$', got 'x'"),
        ("*1\r\n\r\n".to_owned(), "expected '$', got ' '"),
        ("*1\r\n$x\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\n$-1\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\n$04\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\n$536870913\r\n".to_owned(), "invalid bulk length"),
        (format!("*1\r\n${long}"), "too big bulk count string"),
        ("a".repeat(70_000), "too big inline request"),
        ("get \"a\r\n".to_owned(), "unbalanced quotes in request"),
        ("get \"a\"b\r\n".to_owned(), "unbalanced quotes in request"),
        ("get 'a'b\r\n".to_owned(), "unbalanced quotes in request"),
    ];
    for (input, text) in cases {
        let shown = &input[..input.len().min(20)];
        for step in [1, 7, input.len()] {
            let mut client = Client::new(Limits::default());
            for bytes in input.as_bytes().chunks(step) {
                client.receive(bytes);
            }
            client.receive(b"PING\r\n");
            client.settle(|_| 0);
            let expected = format!("-ERR Protocol error: {text}\r\n");
            assert_eq!(String::from_utf8_lossy(&client.output), expected, "{shown:?} by {step}");
            assert!(client.is_finished(), "{shown:?}");
        }
    }
}

#[test]
fn what_redis_tolerates_is_tolerated() {
    for input in [
        "*1\r\n$4\r\nPINGxx",
        "*1\rx$4\rxPINGzz",
        "PING\n",
        "\r\nPING\r\n",
        "   \r\nPING\r\n",
        "*-1\r\nPING\r\n",
        "*0\r\nPING\r\n",
        "\tPING  \r\n",
    ] {
        assert_eq!(talk(input.as_bytes()), "+PONG\r\n", "{input:?}");
    }
    assert_eq!(talk(b"ping '\\'x'\r\n"), "$2\r\n'x\r\n");
    assert_eq!(talk(b"ping \"\\x41\\n\\q\"\r\n"), "$3\r\nA\nq\r\n");
}

#[test]
fn replies_leave_in_the_order_of_the_commands_however_answers_come() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let (mut input, mut expected) = (String::new(), String::new());
        for number in 0..300 {
            let value = format!("value of {number}");
            let reply = format!("${}\r\n{value}\r\n", value.len());
            match random.below(4) {
                0 => {
                    input.push_str("PING\r\n");
                    expected.push_str("+PONG\r\n");
                }
                1 => {
                    input.push_str(&format!("MGET {number} nil {number}\r\n"));
                    expected.push_str(&format!("*3\r\n{reply}$-1\r\n{reply}"));
                }
                2 => {
                    input.push_str("DEL a bc def\r\n");
                    expected.push_str(":6\r\n");
                }
                _ => {
                    input.push_str(&format!("GET {number}\r\n"));
                    expected.push_str(&reply);
                }
            }
        }
        let mut client = Client::new(Limits::default());
        client.receive(input.as_bytes());
        client.settle(|waiting| random.below(waiting));
        assert_eq!(String::from_utf8_lossy(&client.output), expected, "seed {seed}");
        assert_eq!(client.sessions.owed_count(), 0);
    }
}

#[test]
fn values_are_written_in_the_version_that_the_client_chose() {
    let two = "*4\r\n+list\r\n*4\r\n:1\r\n:0\r\n$3\r\n1.5\r\n$-1\r\n$3\r\nkey\r\n:-12345\r\n";
    let three = "%2\r\n+list\r\n*4\r\n#t\r\n#f\r\n,1.5\r\n_\r\n$3\r\nkey\r\n:-12345\r\n";
    assert_eq!(talk(b"KV.SHAPES x\r\n"), two);
    let greeting = talk(b"HELLO 3\r\n");
    assert_eq!(talk(b"HELLO 3\r\nKV.SHAPES x\r\n"), format!("{greeting}{three}"));
    // What was asked before HELLO is answered in the old version.
    let both = talk(b"KV.SHAPES x\r\nHELLO 3\r\nKV.SHAPES x\r\n");
    assert_eq!(both, format!("{two}{greeting}{three}"));
}

#[test]
fn commands_are_described_a_bounded_number_at_a_time() {
    let ask = |what: &str, names: usize| {
        let header = format!("*{}\r\n$7\r\nCOMMAND\r\n$4\r\n{what}\r\n", names + 2);
        talk((header + &"$4\r\nPing\r\n".repeat(names)).as_bytes())
    };
    assert!(ask("INFO", 1).starts_with("*1\r\n*10\r\n$4\r\nping\r\n:-1\r\n"));
    for what in ["INFO", "docs"] {
        assert_eq!(ask(what, 1024).matches("$4\r\nping\r\n").count(), 1024, "{what}");
        assert_eq!(ask(what, 1025), "-ERR more than 1024 names at once\r\n", "{what}");
    }
}

#[test]
fn faults_and_refusals_are_told_with_their_codes() {
    for (input, line) in [
        ("GET failed", "-FAILED the entity failed in this turn; its state was dropped"),
        ("GET expired", "-EXPIRED the deadline passed before the turn; nothing was done"),
        ("GET wrong", "-WRONGTYPE not  this"),
        ("GET nan", "-ERR value is not an integer or out of range"),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("gEt a b", "-ERR wrong number of arguments for 'get' command"),
        ("DEL", "-ERR wrong number of arguments for 'del' command"),
        ("MSET a", "-ERR wrong number of arguments for 'mset' command"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command"),
        ("DBSIZE x", "-ERR wrong number of arguments for 'dbsize' command"),
        ("foo", "-ERR unknown command 'foo', with args beginning with: "),
        ("FOO a b", "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' "),
        ("\"a\\r\\nb\" c", "-ERR unknown command 'a  b', with args beginning with: 'c' "),
    ] {
        assert_eq!(talk(format!("{input}\r\n").as_bytes()), format!("{line}\r\n"), "{input}");
    }
    assert!(talk(b"GET full\r\n").starts_with("-BUSY "));
    let long = "x".repeat(300);
    let expected = format!(
        "-ERR unknown command '{}', with args beginning with: '{}' \r\n",
        &long[..128],
        &long[..128]
    );
    assert_eq!(talk(format!("{long} {long} y\r\n").as_bytes()), expected);
}

#[test]
fn gathered_command_fails_with_the_error_of_its_first_key_in_command_order() {
    for pick_last in [false, true] {
        let pick = |waiting: usize| if pick_last { waiting - 1 } else { 0 };
        for (input, line) in [
            (
                "MGET a expired failed",
                "-EXPIRED the deadline passed before the turn; nothing was done",
            ),
            ("MSET a 1 wrong 2 failed 3", "-WRONGTYPE not  this"),
            ("DEL a text b", "-ERR the answers of the keys cannot be added up"),
            ("DEL huge huge", "-ERR the answers of the keys cannot be added up"),
            ("MGET failed nan", "-FAILED the entity failed in this turn; its state was dropped"),
            ("MGET nan failed", "-ERR value is not an integer or out of range"),
        ] {
            let mut client = Client::new(Limits::default());
            client.receive(format!("{input}\r\nPING\r\n").as_bytes());
            client.settle(pick);
            let expected = format!("{line}\r\n+PONG\r\n");
            assert_eq!(String::from_utf8_lossy(&client.output), expected, "{input}");
        }
    }
}

#[test]
fn sweep_is_a_barrier() {
    let mut client = Client::new(Limits::default());
    client.receive(b"GET a\r\nDBSIZE\r\nGET b\r\nPING\r\n");
    assert_eq!(client.fake.seen.len(), 2, "nothing is parsed behind a sweep");
    client.receive(b"GET c\r\n");
    client.fake.answer(1, &mut client.sessions);
    client.sessions.resume(&mut client.fake);
    assert_eq!(client.fake.seen.len(), 2, "the sweep is answered, what came before it is not");
    client.settle(|_| 0);
    let expected =
        "$10\r\nvalue of a\r\n:77\r\n$10\r\nvalue of b\r\n+PONG\r\n$10\r\nvalue of c\r\n";
    assert_eq!(String::from_utf8_lossy(&client.output), expected);
}

#[test]
fn full_pipeline_pauses_parsing_and_goes_on_by_itself() {
    let limits = Limits { pipeline_max: 8, ..Limits::default() };
    let mut client = Client::new(limits);
    client.receive("GET a\r\n".repeat(100).as_bytes());
    assert_eq!(client.fake.seen.len(), 8);
    client.fake.answer(0, &mut client.sessions);
    client.sessions.resume(&mut client.fake);
    assert_eq!(client.fake.seen.len(), 9);
    client.settle(|_| 0);
    assert_eq!(client.fake.seen.len(), 100);
    assert_eq!(replies::count(&client.output), Ok(100));
    assert_eq!(client.sessions.unparsed_bytes(), 0);
}

#[test]
fn congested_shard_is_not_asked_and_the_session_goes_on_by_itself() {
    let mut client = Client::new(Limits::default());
    client.fake.congested = true;
    client.receive(b"GET a\r\nGET b\r\n");
    client.receive(b"GET c\r\n");
    assert_eq!((client.fake.seen.len(), client.sessions.resume(&mut client.fake)), (0, 0));
    assert!(client.sessions.has_ready());
    client.fake.congested = false;
    client.settle(|_| 0);
    assert_eq!(client.fake.seen.len(), 3);
    assert_eq!(replies::count(&client.output), Ok(3));
}

#[test]
fn unsent_output_pauses_parsing_and_input() {
    let limits = Limits { output_bytes_pause: 1000, query_bytes_pause: 500, ..Limits::default() };
    let mut client = Client::new(limits);
    let input = "PING\r\n".repeat(1000);
    client.receive(input.as_bytes());
    assert!(!client.sessions.wants_input(client.id), "the peer is not read either");
    let len = client.sessions.begin_send(client.id).expect("there is output").len();
    assert!(len < 1100, "{len} bytes of output");
    assert!(client.sessions.begin_send(client.id).is_none(), "one send at a time");
    let rest = client.sessions.end_send(client.id, 10).map(<[u8]>::len);
    assert_eq!(rest, Some(len - 10), "a short send goes on");
    client.sessions.end_send(client.id, len - 10);
    client.settle(|_| 0);
    assert_eq!(client.output.len() + len, 7 * 1000);
    assert!(client.sessions.wants_input(client.id));
}

#[test]
fn output_beyond_its_limit_closes_the_connection() {
    let limits = Limits { output_bytes_max: 50_000, ..Limits::default() };
    let mut client = Client::new(limits);
    client.receive("GET big\r\n".repeat(10).as_bytes());
    client.fake.answer_all(&mut client.sessions);
    assert!(client.is_finished());
    assert!(client.sessions.begin_send(client.id).is_none());
    client.sessions.close(client.id);
    assert_eq!((client.sessions.owed_count(), client.sessions.open_count()), (0, 0));
}

#[test]
fn what_is_not_parsed_counts_no_more_when_answers_close_the_connection() {
    let limits = Limits { output_bytes_max: 50_000, ..Limits::default() };
    let mut client = Client::new(limits);
    let unfinished = b"*2\r\n$4\r\nECHO\r\n$100000\r\n";
    client.receive(&["GET big\r\n".repeat(10).as_bytes(), unfinished, &[0; 5000]].concat());
    assert!(client.sessions.unparsed_bytes() > 5000);
    client.fake.answer_all(&mut client.sessions);
    assert!(client.is_finished());
    client.sessions.close(client.id);
    assert_eq!(client.sessions.unparsed_bytes(), 0, "others pay for what is left in the sum");
}

#[test]
fn declared_lengths_take_no_memory() {
    let mut client = Client::new(Limits::default());
    client.receive(b"*1048576\r\n$536870912\r\n");
    assert!(client.sessions.unparsed_bytes() < 100);
    client.receive(b"0123456789");
    assert!(client.sessions.unparsed_bytes() < 100);
}

#[test]
fn long_command_byte_by_byte_is_read_once() {
    // A parser that starts over at each byte would look at 2^41 bytes here.
    let len = 1 << 21;
    let mut client = Client::new(Limits::default());
    client.receive(format!("*2\r\n$4\r\nECHO\r\n${len}\r\n").as_bytes());
    for _ in 0..len + 2 {
        client.receive(b"x");
    }
    client.settle(|_| 0);
    assert_eq!(client.output.len(), format!("${len}\r\n\r\n").len() + len);
}

#[test]
fn too_many_unparsed_bytes_in_all_cost_the_one_that_holds_most() {
    let limits = Limits { query_bytes_total_max: 10_000, ..Limits::default() };
    let mut client = Client::new(limits);
    let modest = client.sessions.open(None).expect("room");
    let greedy = client.sessions.open(None).expect("room");
    let head = b"*2\r\n$4\r\nECHO\r\n$100000\r\n";
    client.sessions.receive(modest, &[&head[..], &[0; 3000]].concat(), &mut client.fake);
    client.sessions.receive(greedy, &[&head[..], &[0; 6000]].concat(), &mut client.fake);
    client.receive(&[&head[..], &[0; 2000]].concat());
    assert!(!client.sessions.is_finished(modest));
    let bytes = client.sessions.begin_send(greedy).expect("an error").to_vec();
    assert!(bytes.starts_with(b"-ERR too many bytes"));
    client.sessions.end_send(greedy, bytes.len());
    assert!(client.sessions.is_finished(greedy));
    assert!(client.sessions.unparsed_bytes() < 6000);
}

#[test]
fn one_connection_may_not_hold_more_than_its_limit() {
    let limits = Limits { query_bytes_max: 1000, ..Limits::default() };
    let mut client = Client::new(limits);
    client.receive(b"*2\r\n$4\r\nECHO\r\n$100000\r\n");
    for _ in 0..20 {
        client.receive(&[0; 100]);
    }
    assert!(client.is_finished());
    assert_eq!(client.sessions.unparsed_bytes(), 0);
}

#[test]
fn there_are_no_more_sessions_than_allowed() {
    let mut sessions = Sessions::new(Limits { connections_max: 2, ..Limits::default() });
    let first = sessions.open(None).expect("room");
    assert!(sessions.open(None).is_some());
    assert!(sessions.open(None).is_none());
    sessions.close(first);
    let again = sessions.open(None).expect("room again");
    assert_eq!(again.slot, first.slot);
    assert_ne!(again.generation, first.generation);
}

#[test]
fn answer_to_a_closed_connection_is_dropped_and_not_given_to_the_next_one() {
    let mut client = Client::new(Limits::default());
    client.receive(b"GET a\r\nMGET b c\r\n");
    client.sessions.close(client.id);
    client.id = client.sessions.open(None).expect("room");
    assert_eq!(client.id.slot, 0, "the same slot");
    client.receive(b"GET d\r\n");
    client.settle(|_| 0);
    assert_eq!(client.output, b"$10\r\nvalue of d\r\n");
    assert_eq!(client.sessions.stats().late_answers, 3);
    assert_eq!(client.sessions.owed_count(), 0);
    // The ticket of a session that never was.
    let nobody = coreside_shard::Ticket([u64::MAX, 0]);
    client.sessions.answer(nobody, Ok(&1u64));
    assert_eq!(client.sessions.stats().late_answers, 4);
}

#[test]
fn quit_sends_what_is_owed_and_ends() {
    let mut client = Client::new(Limits::default());
    client.receive(b"GET a\r\nQUIT\r\nGET b\r\n");
    assert!(!client.is_finished(), "an answer is owed");
    client.settle(|_| 0);
    assert_eq!(client.output, b"$10\r\nvalue of a\r\n+OK\r\n");
    assert!(client.is_finished());
}

#[test]
fn peer_that_sends_no_more_still_gets_its_replies() {
    let limits = Limits { pipeline_max: 2, ..Limits::default() };
    let mut client = Client::new(limits);
    client.receive(b"GET a\r\nGET b\r\nGET c\r\nGET d\r\nGET unfinis");
    client.sessions.end_input(client.id);
    assert!(!client.is_finished());
    client.settle(|_| 0);
    assert_eq!(replies::count(&client.output), Ok(4));
    assert!(client.is_finished());
}

#[test]
fn drained_session_parses_no_more_and_finishes_when_it_has_answered() {
    let mut client = Client::new(Limits::default());
    client.receive(b"GET a\r\n");
    client.sessions.drain();
    client.receive(b"GET b\r\n");
    assert!(!client.is_finished());
    client.settle(|_| 0);
    assert_eq!(client.output, b"$10\r\nvalue of a\r\n");
    assert!(client.is_finished());
}
