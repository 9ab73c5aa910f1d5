//! A parser of whole buffers, written for obviousness, and pipelines to compare by.

use super::random::Random;

type Words = Vec<Vec<u8>>;

/// What the fake answers to `GET` and `SET`-free pipelines.
pub(crate) fn value(words: &[Vec<u8>]) -> Vec<u8> {
    [b"value of ", &words[1][..]].concat()
}

/// Commands that the fake or the session answers with a string, in every spelling, and sometimes
/// something wrong at the end.
pub(crate) fn pipeline(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..random.below(40) {
        let name = if random.below(4) == 0 { "ECHO" } else { "GET" };
        let len = [0, 1, 5, 30, 300, 5000][random.below(6)];
        let alphabet: &[u8] = if random.below(2) == 0 { b"ab" } else { b"a*$\r\n\"'\\ \0\xff-1" };
        let word: Vec<u8> = (0..len).map(|_| alphabet[random.below(alphabet.len())]).collect();
        match random.below(8) {
            0 => input
                .extend_from_slice([&b"\r\n"[..], b"*0\r\n", b"*-7\r\n", b"\n"][random.below(4)]),
            1 => {
                input.extend_from_slice(format!("{name} \"").as_bytes());
                for byte in word {
                    input.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
                }
                input.extend_from_slice(b"\"\r\n");
            }
            2 if word.iter().all(u8::is_ascii_alphanumeric) && !word.is_empty() => {
                input.extend_from_slice(format!(" {name}\t").as_bytes());
                input.extend_from_slice(&word);
                input.extend_from_slice(b" \n");
            }
            _ => {
                let head = format!("*2\r\n${}\r\n{name}\r\n${}\r\n", name.len(), word.len());
                input.extend_from_slice(head.as_bytes());
                input.extend_from_slice(&word);
                input.extend_from_slice(b"\r\n");
            }
        }
    }
    let endings = [
        &b""[..],
        b"*2\r\n$3\r\nGE",
        b"*x\r\nPING\r\n",
        b"*1\r\nx\r\nz",
        b"*1\r\n$1x\r\n",
        b"a \"b\r\n",
    ];
    input.extend_from_slice(endings[random.below(endings.len())]);
    input
}

/// The commands of `input` in order, and the error reply that ends them if there is one.
pub(crate) fn parse(input: &[u8]) -> (Vec<Words>, Option<&'static str>) {
    let (mut commands, mut rest) = (Vec::new(), input);
    while !rest.is_empty() {
        if rest[0] == b'*' {
            let Some((head, tail)) = line(rest, "\r\n") else { break };
            let Ok(count) = number(&head[1..]) else {
                return (commands, Some("-ERR Protocol error: invalid multibulk length\r\n"));
            };
            let (mut words, mut tail) = (Words::new(), tail);
            for _ in 0..count.max(0) {
                let Some((head, body)) = line(tail, "\r\n") else { return (commands, None) };
                if head[0] != b'$' {
                    return (commands, Some("-ERR Protocol error: expected '$', got 'x'\r\n"));
                }
                let Ok(len) = number(&head[1..]) else {
                    return (commands, Some("-ERR Protocol error: invalid bulk length\r\n"));
                };
                let len = len as usize;
                if body.len() < len + 2 {
                    return (commands, None);
                }
                words.push(body[..len].to_vec());
                tail = &body[len + 2..];
            }
            if !words.is_empty() {
                commands.push(words);
            }
            rest = tail;
        } else {
            let Some((text, tail)) = line(rest, "\n") else { break };
            let Some(words) = split(text) else {
                return (commands, Some("-ERR Protocol error: unbalanced quotes in request\r\n"));
            };
            if !words.is_empty() {
                commands.push(words);
            }
            rest = tail;
        }
    }
    (commands, None)
}

fn line<'a>(rest: &'a [u8], end: &str) -> Option<(&'a [u8], &'a [u8])> {
    let at = rest.windows(end.len()).position(|window| window == end.as_bytes())?;
    Some((&rest[..at], &rest[at + end.len()..]))
}

fn number(digits: &[u8]) -> Result<i64, ()> {
    std::str::from_utf8(digits).map_err(drop)?.parse().map_err(drop)
}

/// Words are bare, or one double-quoted string of `\xHH`, as [`pipeline`] makes them.
fn split(text: &[u8]) -> Option<Words> {
    let text = String::from_utf8(text.to_vec()).ok()?;
    let (bare, quoted) = text.split_once('"').unwrap_or((&text, ""));
    let mut words: Words = bare.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
    if text.contains('"') {
        let inside = quoted.strip_suffix("\"\r").or(quoted.strip_suffix('"'))?;
        let bytes = inside.split("\\x").skip(1);
        words.push(bytes.map(|hex| u8::from_str_radix(hex, 16)).collect::<Result<_, _>>().ok()?);
    }
    Some(words)
}
